from elastictok_cli.models import checkpoint
from elastictok_cli.models.cell.token_layout import TokenLayout


def test_the_shipped_model_s_control_tokens_fill_its_vocabulary() -> None:
    spec = checkpoint.load().tokenizer.spec
    ranges = [(r.kind, r.first, r.count, r.followed_by) for r in spec.control_tokens]
    assert ranges == [
        ("motion_vector", 64_000, 1_521, 0),
        ("gain", 65_521, 3, 0),
        ("pan", 65_524, 2, 0),
        ("shake", 65_526, 1, 1),
    ]
    assert spec.vocabulary == 65_527


def test_a_model_without_camera_motion_has_fewer_values() -> None:
    assert TokenLayout(64_000, pan=False, shake=False).vocabulary == 65_524
    assert TokenLayout(64_000, pan=True, shake=False).vocabulary == 65_526
    kinds = [r.kind for r in TokenLayout(64_000, pan=True, shake=False).control_tokens]
    assert kinds == ["motion_vector", "gain", "pan"]
