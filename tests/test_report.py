import numpy as np

from streampose.report import Picture, Section, Table, write_picture, write_report


def test_a_page_holds_everything_and_no_foreign_markup(tmp_path):
    image = np.zeros((8, 8, 3), np.uint8)
    file = write_picture(tmp_path / "a.png", image)
    section = Section(
        "Errors <b>",
        ["All of them."],
        [Table(["joint", "error"], [["knee", 0.123456], ["all", 3]])],
        [Picture(image, "array"), Picture(file, "file")],
    )
    page = write_report(tmp_path / "deep" / "report.html", "Title", [section]).read_text()
    assert "Errors &lt;b&gt;" in page
    assert "0.1235" in page
    assert page.count('<img src="data:image/') == 2
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["report.html"]
