"""Fashion-MNIST: its classes, the shape of its images, and the checksums of its files.

Xiao, Rasul, Vollgraf 2017, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms",
arXiv:1708.07747.
"""

CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
NUM_CLASSES = len(CLASS_NAMES)
IMAGE_SHAPE = (1, 28, 28)
NUM_PIXELS = 28 * 28
UNLABELLED = -1  # the label of a sample of an unconditional model
TRAIN_SIZE, TEST_SIZE = 60_000, 10_000  # images of the official split
