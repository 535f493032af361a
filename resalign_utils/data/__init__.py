"""Named image data sets as tensors in memory, and a way to bring one's own.

    digits         1437 + 360    (1, 8, 8)    Alpaydin & Kaynak 1998, UCI, doi:10.24432/C50P49
    mnist          60000 + 10000 (1, 28, 28)  LeCun, Bottou, Bengio & Haffner 1998, Proc. IEEE 86(11)
    fashion_mnist  60000 + 10000 (1, 28, 28)  Xiao, Rasul & Vollgraf 2017, arXiv:1708.07747
    cifar10        50000 + 10000 (3, 32, 32)  Krizhevsky 2009, technical report, University of Toronto
    cifar100       50000 + 10000 (3, 32, 32)  the same; its 100 fine labels
    imagenette     9469 + 3925   (3, 32, 32)  Howard 2019, github.com/fastai/imagenette (from ImageNet)

These are training + test images and their shape (c, h, w). `digits` is scikit-learn's copy and comes with it,
split once and for all; the others are read from torchvision's own folder layout. Imagenette's 160-pixel JPEGs
come to 32×32: the shorter side to 32 (Pillow's antialiased bilinear filter), then the middle is cut out.

"""

from ._files import LOADERS
from ._images import ImageData
from ._load import load_data

__all__ = ["LOADERS", "ImageData", "load_data"]
