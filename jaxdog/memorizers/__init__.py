"""The disqualified entries of 2019, kept apart from the generative models.

The competition's metric, MiFID, compared generated images with training images in Inception features only.
Some entries exploited this and submitted slightly changed training photos. Nothing in this package generates
new images. It exists to test copy detection and metrics on these entries.

models:    networks that map the index of a training image to the image
system:    their training, and "imitation", which stores the images without training
baselines: the images of these entries, computed directly from the photos
"""
