"""What every image here is: one channel of 28 x 28 grey levels. Which images, and of which classes, the params say."""

IMAGE_SHAPE = (1, 28, 28)
NUM_PIXELS = 28 * 28
WHITE = 255  # the largest grey level
UNLABELLED = -1  # the label of a sample of an unconditional model
