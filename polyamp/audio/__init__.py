"""Audio at the door and in the model: reading files, spectrogram layers, augmentation."""
