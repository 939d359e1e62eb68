"""Training by Lightning: the module, the data module, callbacks, the Trainer, devices and launching."""
