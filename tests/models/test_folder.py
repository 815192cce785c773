"""Folders of .npz and CSV files: what is read, and what each fault says."""

import numpy as np
import pytest

from models.data import Dataset, load_folder
from wire.errors import DataError

X, Y = np.arange(12, dtype=np.float32).reshape(4, 3), np.array([0, 1, 1, 0])


def test_npz_files_are_joined_in_order_of_name(tmp_path):
    np.savez(tmp_path / "b.npz", x=X + 100, y=Y, subject=np.array([5, 5, 6, 6]))
    np.savez(tmp_path / "a.npz", x=X.astype(np.uint8), y=Y.astype(np.uint8), subject=np.array([1, 1, 2, 2]))
    (tmp_path / "notes.txt").write_text("not data")
    data = load_folder(tmp_path, (3,), 2)
    assert (data.x.dtype, data.y.dtype, len(data)) == (np.float32, np.int64, 8)
    assert np.array_equal(data.x, np.concatenate([X, X + 100]))
    assert data.subject is not None
    assert data.subject.tolist() == [1, 1, 2, 2, 5, 5, 6, 6]
    assert data.take(np.array([7])).x.tolist() == [[109.0, 110.0, 111.0]]


@pytest.mark.parametrize(
    "text",
    [
        "1,2,0\n3,4,1\n",
        "a,b,kind\n1,2,0\n\n3,4,1\n",
        "label,a,b\n0,1,2\n1,3,4\n",
        "a, label ,b\r\n1,0,2\r\n3,1.0,4",
        "Label,a,b\n0,1,2\n1,3,4\n",
        "0,1,label\n1,2,0\n3,4,1\n",
        "\ufefflabel,a,b\r\n0,1,2\r\n1,3,4\r\n",
        "\ufeff1,2,0\r\n3,4,1\r\n",
    ],
)
@pytest.mark.parametrize("name", ["one.csv", "ONE.CSV"])
def test_csv_with_and_without_names(tmp_path, text, name):
    (tmp_path / name).write_text(text, encoding="utf-8")
    data = load_folder(tmp_path)
    assert (data.x.tolist(), data.y.tolist(), data.subject) == ([[1, 2], [3, 4]], [0, 1], None)


def test_csv_subject_and_shape(tmp_path):
    (tmp_path / "one.csv").write_text("a,b,c,d,subject,label\n1,2,3,4,9,0\n5,6,7,8,8,1\n")
    data = load_folder(tmp_path, (1, 2, 2), 2)
    assert data.subject is not None
    assert data.subject.tolist() == [9, 8]
    assert data.x[1].tolist() == [[[5, 6], [7, 8]]]


def broken(**arrays):
    return {"x": X, "y": Y, **arrays}


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"x": X}, "'y'"),
        ({"y": Y}, "'x'"),
        (broken(x=np.where(X == 7, np.nan, X)), r"x\[2\]"),
        (broken(x=np.where(X == 1, np.inf, X)), r"x\[0\]"),
        (broken(x=np.full((4, 3), 1e300)), r"x\[0\]"),
        (broken(x=X.astype(complex)), "complex"),
        (broken(x=X.astype(str)), "<U"),
        (broken(x=X[:, 0]), r"\(4,\)"),
        (broken(x=X[:3]), r"\[3, 4\]"),
        (broken(y=Y.astype(float)), "y is float64"),
        (broken(y=Y[:, None]), r"\(4, 1\)"),
        (broken(y=Y - 1), r"y\[0\] is -1"),
        (broken(y=Y + 1), r"y\[1\] is 2"),
        (broken(y=np.full(4, 2**64 - 1, np.uint64)), r"y\[0\]"),
        (broken(subject=np.zeros(3, int)), r"\[3, 4\]"),
        (broken(subject=np.zeros(4)), "subject is float64"),
        (broken(x=X[:0], y=Y[:0]), r"\[0\]"),
        (broken(x=np.zeros((4, 0))), r"\(4, 0\)"),
        (broken(x=np.zeros((4, 2))), r"\(2,\)"),
        (broken(x=np.array([[object()]] * 4)), "cannot be read"),
    ],
)
def test_faults_in_npz(tmp_path, arrays, says):
    np.savez(tmp_path / "bad.npz", **arrays)
    check_fault(tmp_path, says, "bad.npz")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no example"),
        ("a,b,c,label\n", "no example"),
        ("1,2,3,0\n1,2,0\n", "line 2"),
        ("1,2,3,0\n\n1,2,x,0\n", "line 3"),
        ("1,2,3,0\n1,nan,3,0\n", "line 2"),
        ("1,2,3,0\n1,2,inf,0\n", "line 2"),
        ("1,2,3,0.5\n", "0.5"),
        ("1,2,3,2\n", r"y\[0\] is 2"),
        ("1,2,3,-1\n", r"y\[0\] is -1"),
        ("0\n1\n", "one column"),
        ("a,b,label\n1,2,3,0\n", "3 names"),
        ("1;2;3;0\n1;2;3;0\n", "line 2"),
        ("1,2,0\n", r"\(2,\)"),
        ("1.0,,3,0\n1,2,3,1\n", "line 1, cell 2: '' is no number"),
        ("1,2,x,0\n1,2,3,1\n", "line 1, cell 3: 'x' is no number"),
        ("1,2,3,label,x\n1,2,3,0\n", "5 names"),
        ("1,5;2,5;0\n1,5;2,5;1\n", "line 1, cell 2: '5;2'"),
    ],
)
def test_faults_in_csv(tmp_path, text, says):
    (tmp_path / "bad.csv").write_text(text)
    check_fault(tmp_path, says, "bad.csv")


@pytest.mark.parametrize("name", ["bad.npz", "bad.csv"])
def test_files_that_are_no_files_of_their_kind(tmp_path, name):
    (tmp_path / name).write_bytes(b"PK\x03\x04\xff\xfe garbage")
    check_fault(tmp_path, "cannot be read", name)


def test_a_cut_npz(tmp_path):
    np.savez_compressed(tmp_path / "bad.npz", x=X, y=Y)
    whole = (tmp_path / "bad.npz").read_bytes()
    (tmp_path / "bad.npz").write_bytes(whole[: len(whole) // 2])
    check_fault(tmp_path, "cannot be read", "bad.npz")


def test_files_of_two_kinds(tmp_path):
    np.savez(tmp_path / "a.npz", x=X, y=Y)
    np.savez(tmp_path / "b.npz", x=X, y=Y, subject=Y)
    check_fault(tmp_path, "True", "b.npz")


def test_nothing_there(tmp_path):
    check_fault(tmp_path, "no .npz or .csv", str(tmp_path))
    check_fault(tmp_path / "absent", "no .npz or .csv", "absent")


def check_fault(folder, says, place):
    with pytest.raises(DataError, match=says) as caught:
        load_folder(folder, (3,), 2)
    assert place in caught.value.message
    assert caught.value.remedy


def test_a_spread_sample_of_a_sorted_file_has_all_classes_in_proportion():
    labels = np.repeat(np.arange(3), [600, 300, 100])
    data = Dataset(np.arange(1000, dtype=np.float32)[:, None], labels)
    sample = data.spread(100)
    assert np.bincount(sample.y).tolist() == [60, 30, 10]
    assert len(set(sample.x[:, 0])) == 100
    assert data.spread(1000) is data
