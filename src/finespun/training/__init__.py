"""Fine-tuning: the one LightningModule, optimizers and schedules, checkpoints, devices, launching."""
