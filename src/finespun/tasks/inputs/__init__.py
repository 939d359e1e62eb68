"""What a model is given: texts, pairs, words, images; roles, encoding, batches, augmentation."""
