import pytest


@pytest.mark.parametrize("name", ["sd15", "sd2", "sdxl"])
def test_folders_load_frozen(tiny_models, name):
    models = tiny_models(name)
    assert models.family.name == name
    assert not any(p.requires_grad for part in models.parts().values() for p in part.parameters())


def test_the_starter_loads(starter):
    assert starter.family.name == "sd15" and starter.resolution == 128
