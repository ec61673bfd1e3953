"""NVIDIA's checkpoints: modules with its names, in files as its two scripts write them.

DeepLearningExamples is in no package registry, so we write its modules here. Names and order of
operations follow its image_classification/models, so that a wrong name or layout is noticed.
"""

from collections import OrderedDict

import pytest

torch = pytest.importorskip(
    "torch", reason="needs the extra `parity`: see tests/parity/conftest.py"
)
nn = torch.nn
CLASSES = 20


def as_trained(state):
    """Returns what main.py saves during training."""
    state = {f"module.{name}": value for name, value in state.items()}
    momenta = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}
    facts = {"epoch": 90, "arch": "resnet50", "best_prec1": torch.tensor(78.0)}
    return {**facts, "state_dict": state, "optimizer": momenta}


def as_published(state):
    """Returns what checkpoint2model.py makes of it."""
    return OrderedDict(state)


class Squeeze(nn.Module):
    """Squeeze-and-excitation of linear layers, or of 1x1 convolutions as for TensorRT."""

    def __init__(self, channels, units, activation, linear):
        super().__init__()
        layer = nn.Linear if linear else lambda ins, outs: nn.Conv2d(ins, outs, 1)
        self.squeeze, self.expand = layer(channels, units), layer(units, channels)
        self.activation, self.linear = activation, linear

    def forward(self, x):
        pooled = x.mean((2, 3)) if self.linear else x.mean((2, 3), keepdim=True)
        gate = self.expand(self.activation(self.squeeze(pooled))).sigmoid()
        return x * gate.reshape(*gate.shape[:2], 1, 1)


def conv(ins, outs, kernel=1, stride=1, groups=1):
    return nn.Conv2d(ins, outs, kernel, stride, kernel // 2, groups=groups, bias=False)


class Bottleneck(nn.Module):
    def __init__(self, ins, width, outs, stride, groups, linear):
        super().__init__()
        self.conv1, self.bn1 = conv(ins, width), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = conv(width, width, 3, stride, groups), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = conv(width, outs), nn.BatchNorm2d(outs)
        self.downsample, self.squeeze = None, None
        if stride > 1 or ins != outs:
            self.downsample = nn.Sequential(conv(ins, outs, 1, stride), nn.BatchNorm2d(outs))
        if linear is not None:
            self.squeeze = Squeeze(outs, 16, nn.ReLU(), linear)

    def forward(self, x):
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn3(self.conv3(self.bn2(self.conv2(y)).relu()))
        y = self.squeeze(y) if self.squeeze else y
        return (y + (self.downsample(x) if self.downsample else x)).relu()


class ResNet(nn.Module):
    def __init__(self, repeats, widths, expansion, groups=1, linear=None):
        super().__init__()
        self.conv1, self.bn1 = conv(3, 64, 7, 2), nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        stages, ins = [], 64
        for stage, (repeat, width) in enumerate(zip(repeats, widths, strict=True)):
            outs, stride = width * expansion, 1 if stage == 0 else 2
            shapes = [(ins, stride)] + [(outs, 1)] * (repeat - 1)
            stages.append([Bottleneck(i, width, outs, s, groups, linear) for i, s in shapes])
            ins = outs
        self.layers = nn.Sequential(*(nn.Sequential(*stage) for stage in stages))
        self.fc = nn.Linear(ins, CLASSES)

    def forward(self, x):
        x = self.layers(self.maxpool(self.bn1(self.conv1(x)).relu()))
        return self.fc(x.mean((2, 3)))


@pytest.mark.parametrize("wrap", [as_trained, as_published])
def test_resnet50_with_nvidias_names_gives_the_same_results(wrap, compare):
    theirs = ResNet((3, 4, 6, 3), (64, 128, 256, 512), 4)
    name = "nvidia_resnet50_200821.pth.tar"
    compare(theirs, "resnet50", f"NVIDIA's names, {wrap.__name__}", name, wrap=wrap)


@pytest.mark.parametrize("linear", [True, False])
def test_se_resnext101_with_nvidias_names_gives_the_same_results(linear, compare):
    theirs = ResNet((3, 4, 23, 3), (128, 256, 512, 1024), 2, 32, linear)
    partner = f"NVIDIA's names, SE of {'linear' if linear else '1x1'} layers"
    compare(theirs, "se-resnext101-32x4d", partner, "x.pth.tar", wrap=as_published)


def unit(ins, outs, kernel=1, stride=1, groups=1, act=True):
    norm = nn.BatchNorm2d(outs, eps=1e-3, momentum=0.01)
    parts = [("conv", conv(ins, outs, kernel, stride, groups)), ("bn", norm)]
    return nn.Sequential(OrderedDict(parts + [("act", nn.SiLU())] * act))


class MBConv(nn.Module):
    def __init__(self, ins, outs, kernel, stride, expand):
        super().__init__()
        wide, self.residual = ins * expand, stride == 1 and ins == outs
        self.expand = unit(ins, wide) if expand > 1 else None
        self.depsep = unit(wide, wide, kernel, stride, wide)
        self.se = Squeeze(wide, ins // 4, nn.SiLU(), linear=False)
        self.proj = unit(wide, outs, act=False)

    def forward(self, x):
        y = self.proj(self.se(self.depsep(self.expand(x) if self.expand else x)))
        return x + y if self.residual else y


class EfficientNetB0(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, stages, ins = unit(3, 32, 3, 2), [], 32
        for kernel, stride, repeat, expand, outs in (
            *((3, 1, 1, 1, 16), (3, 2, 2, 6, 24), (5, 2, 2, 6, 40), (3, 2, 3, 6, 80)),
            *((5, 1, 3, 6, 112), (5, 2, 4, 6, 192), (3, 1, 1, 6, 320)),
        ):
            shapes = [(ins, stride)] + [(outs, 1)] * (repeat - 1)
            blocks = [MBConv(i, outs, kernel, s, expand) for i, s in shapes]
            stages.append(OrderedDict((f"block{i}", block) for i, block in enumerate(blocks)))
            ins = outs
        self.layers = nn.Sequential(*(nn.Sequential(stage) for stage in stages))
        self.features = unit(ins, 1280)
        self.classifier = nn.Sequential(OrderedDict(fc=nn.Linear(1280, CLASSES)))

    def forward(self, x):
        return self.classifier(self.features(self.layers(self.stem(x))).mean((2, 3)))


@pytest.mark.parametrize("wrap", [as_trained, as_published])
def test_efficientnet_b0_with_nvidias_names_gives_the_same_results(wrap, compare):
    name = "nvidia_efficientnet-b0_210412.pth"
    compare(
        EfficientNetB0(), "efficientnet-b0", f"NVIDIA's names, {wrap.__name__}", name, wrap=wrap
    )
