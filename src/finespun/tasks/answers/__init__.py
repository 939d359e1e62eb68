"""What a model answers: targets, loss, outputs, predictions and their judgement."""
