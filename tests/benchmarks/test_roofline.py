"""The roofline, and the plots of stored rows."""

import json

import pytest

from benchmarks import plots, roofline


def test_parts_need_what_their_sizes_say():
    part = roofline.PARTS["linear, 512 x 1280 x 10240"]()
    rows, inputs, outputs = 512 // 16, 1280 // 16, 10240 // 16
    assert part.operations == 2 * rows * inputs * outputs
    assert part.bytes == 4 * (rows * inputs + inputs * outputs + rows * outputs)
    assert part.call().shape == (rows, outputs)
    part = roofline.PARTS["convolution, 1280 channels, 8x8"]()
    assert part.operations == 2 * 2 * 8 * 8 * 9 * 80 * 80


def test_each_part_lies_below_the_roof_in_its_row(monkeypatch):
    monkeypatch.setattr(roofline, "PARTS", dict(list(roofline.PARTS.items())[-2:]))
    rows = {row.id: row.value for row in roofline.main(["parts"])}
    share = rows["roofline.geglu_8192_x_1280_triton.share"]
    roof = rows["roofline.peak.bandwidth"] / 1000 * 5 / 6
    rate = rows["roofline.geglu_8192_x_1280_triton.tflops"]
    assert share == pytest.approx(100 * rate / min(roof, rows["roofline.peak.tflops"]), rel=1e-3)


def test_plots_are_drawn_of_the_rows_that_are_there(tmp_path, monkeypatch, capsys):
    values = {f"speed.{size}.{way}": 2.0 for size in plots.SIZES for way in plots.WAYS}
    rows = [{"id": key, "value": value} for key, value in values.items()]
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "speed.json").write_text(json.dumps({"rows": rows}))
    monkeypatch.setattr(plots, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(plots, "EVALUATION", tmp_path / "none.json")
    monkeypatch.setattr(plots, "FOLDER", tmp_path / "speed")
    assert plots.main() == [tmp_path / "speed" / "sizes.svg"]
    first = (tmp_path / "speed" / "sizes.svg").read_bytes()
    assert b"SD 2.1" in first
    assert "roofline: no row 'roofline.peak.tflops' is stored" in capsys.readouterr().out
    plots.main()
    assert (tmp_path / "speed" / "sizes.svg").read_bytes() == first
