import pytest
import torch
from torch import nn

from layers import (
    BlogEncoder,
    ConcatScore,
    ConvolutionalDecoder,
    DenseDecoder,
    DenseEncoder,
    DIMEncoder,
    untrained_copy,
)
from layers.images.channels import for_channels


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("image_size", "to_mean", "with_logvar", "everything"),
    [(32, 1_618_688, 1_684_480, 2_210_818), (64, 1_636_352, 1_702_144, 2_228_482)],
)
def test_blog_encoder_has_the_published_sizes(image_size, to_mean, with_logvar, everything):
    assert count(BlogEncoder(image_size, stochastic=False)) == to_mean
    encoder = BlogEncoder(image_size)
    assert count(encoder) == with_logvar
    assert count(ConcatScore(256, 256)) == 263_169
    assert count(encoder) + 2 * count(ConcatScore(256, 256)) == everything
    output = encoder(torch.rand(2, 3, image_size, image_size) - 0.5)
    assert output.local.shape == output.conv.shape == (2, 256, 4, 4)
    assert output.fc.shape == output.mean.shape == output.logvar.shape == (2, 256)


def test_blog_encoder_has_the_defaults_of_keras():
    encoder = BlogEncoder()
    norms = [module for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 5
    assert all(norm.momentum == 0.01 and norm.eps == 1e-3 for norm in norms)
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(module.weight)
            limit = (6 / (fan_in + fan_out)) ** 0.5
            assert module.bias.abs().max() == 0
            assert 0.9 * limit < module.weight.abs().max() <= limit


def test_dim_encoder_has_the_layers_of_the_paper():
    encoder = DIMEncoder()
    output = encoder(torch.rand(2, 3, 32, 32))
    assert output.local.shape == (2, 128, 8, 8)
    assert output.conv.shape == (2, 256, 4, 4)
    assert output.fc.shape == (2, 1024)
    assert output.mean.shape == (2, 64)
    assert output.logvar is None
    convolutions = [m for m in encoder.modules() if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [64, 128, 256]
    assert all(m.bias is None and m.kernel_size == (4, 4) and m.stride == (2, 2) for m in convolutions)


@pytest.mark.parametrize("make", [BlogEncoder, DIMEncoder, lambda: DIMEncoder(stochastic=True)])
def test_global_network_takes_the_local_map_and_has_weights_of_its_own(make):
    encoder = make()
    network = encoder.global_network(48)
    local = encoder(torch.rand(3, 3, 32, 32)).local
    assert network(local).shape == (3, 48)
    assert not {id(p) for p in network.parameters()} & {id(p) for p in encoder.parameters()}


@pytest.mark.parametrize("make", [BlogEncoder, DIMEncoder])
def test_permuted_images_give_permuted_codes(make):
    encoder, images, order = make().eval(), torch.rand(6, 3, 32, 32), torch.randperm(6)
    torch.testing.assert_close(encoder(images).mean[order], encoder(images[order]).mean)


def test_untrained_copy_has_new_weights_and_changes_nothing_else():
    torch.manual_seed(1)  # not the seed of the copy
    encoder = BlogEncoder(channels=32).train()
    encoder(torch.rand(4, 3, 32, 32))  # moves the running statistics
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    state = torch.get_rng_state()
    untrained = untrained_copy(encoder)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert not torch.equal(untrained.mean.weight, encoder.mean.weight)
    running = [value for name, value in untrained.state_dict().items() if name.endswith("running_mean")]
    assert running
    assert all(value.abs().max() == 0 for value in running)
    assert torch.equal(untrained.mean.weight, untrained_copy(encoder).mean.weight)
    assert not untrained.training


@pytest.mark.parametrize("image_size", [0, 4, 24, 33])
def test_impossible_image_sizes_are_refused(image_size):
    with pytest.raises(ValueError, match=f"image_size \\({image_size}\\)"):
        BlogEncoder(image_size)


def test_dim_encoder_refuses_sizes_that_are_not_multiples_of_eight():
    with pytest.raises(ValueError, match="multiple of 8"):
        DIMEncoder(20)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_other_numbers_of_channels(channels):
    images = torch.rand(2, channels, 16, 16)
    for make in (BlogEncoder, DIMEncoder, DenseEncoder):
        encoder = for_channels(make, 16, in_channels=channels)
        output = encoder(images)
        assert output.mean.shape == (2, encoder.code_size)
        assert output.local.shape[1] == encoder.local_size
        assert encoder.global_network(5)(output.local).shape == (2, 5)
    for make in (ConvolutionalDecoder, DenseDecoder):
        assert for_channels(make, 7, 16, out_channels=channels)(torch.rand(2, 7)).shape == images.shape


def test_a_part_for_three_channels_only_is_named():
    class Rgb(BlogEncoder):
        def __init__(self, image_size: int) -> None:
            super().__init__(image_size)

    assert for_channels(Rgb, 16, in_channels=3).code_size == 256
    with pytest.raises(ValueError, match=r"Rgb is for images of 3 channels, the data's have 1: set data.channels=3"):
        for_channels(Rgb, 16, in_channels=1)
