"""Tables of FER2013: every value is read as it is, or named as wrong."""

import io

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np
from tiny_releases import Face, challenge_csv

from fer_jax.data.datasets import class_names, fer2013_csv
from fer_jax.errors import UserError


def read(table: str) -> list[fer2013_csv.FaceRow]:
  return list(fer2013_csv.read("fer2013.csv", io.BytesIO(table.encode())))


GOOD = " ".join(["7"] * 2304)


def with_pixel(value: str) -> str:
  return " ".join(["7"] * 1000 + [value] + ["7"] * 1303)


@pytest.mark.parametrize(
  ("line", "message"),
  [
    (f"0,{GOOD} 7,Training", "2305 pixels instead of 2304"),
    (f"0,{GOOD[2:]},Training", "2303 pixels instead of 2304"),
    ("0,,Training", "0 pixels instead of 2304"),
    (f"0,{with_pixel('256')},Training", "pixel '256' is not a number"),
    (f"0,{with_pixel('9' * 30)},Training", "pixel '99999999999999999999...'"),
    (f"0,{with_pixel('-1')},Training", "pixel '-1' is not a number"),
    (f"0,{with_pixel('+1')},Training", r"pixel '\+1' is not a number"),
    (f"0,{with_pixel('1.5')},Training", "pixel '1.5' is not a number"),
    (f"0,{with_pixel('nan')},Training", "pixel 'nan' is not a number"),
    (f"7,{GOOD},Training", "emotion '7' must be 0 to 6"),
    (f"-1,{GOOD},Training", "emotion '-1' must be 0 to 6"),
    (f",{GOOD},Training", "emotion '' must be 0 to 6"),
    (f"0,{GOOD},Testing", "Usage 'Testing' must be one of Training, PublicT"),
    (f"0,{GOOD},PrivateTes", "Usage 'PrivateTes' must be"),
    (f"0,{GOOD},Training,1", "4 fields instead of 3"),
    (f"0,{GOOD}", "2 fields instead of 3: is the file truncated"),
    ("0," + "7 " * 40000, "a line of more than 65,536 bytes"),
  ],
)
def test_wrong_row_is_named_by_file_and_line(line, message):
  good = f"1,{GOOD},Training"
  table = "\n".join(["emotion,pixels,Usage", good, "", line, good])
  with pytest.raises(UserError, match=message) as error:
    read(table)
  assert str(error.value).startswith("fer2013.csv, line 4: ")
  assert "\n" not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize(
  ("header", "message"),
  [
    ("emotion,Usage", "line 1: no column pixels in the header"),
    ("pixels", "without labels .no column emotion., such as Kaggle's test.csv"),
    ("", "no column pixels in the header"),
    ("<!DOCTYPE html>", "is this fer2013.csv, icml_face_data.csv or train.csv"),
    ("1" * 70_000, "a line of more than 65,536 bytes: is this fer2013.csv"),
  ],
)
def test_missing_columns_are_named(header, message):
  with pytest.raises(UserError, match=message):
    read(header)


@pytest.mark.parametrize(
  "header", ["Emotion,Pixels,usage", " EMOTION , pixels ,USAGE "]
)
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_headers_in_any_case_and_other_separators(header, separator):
  table = f"{header}\n3,{GOOD},PrivateTest\n".replace(",", separator)
  (row,) = read(table)
  assert (row.split, row.label, row.row) == ("test", 3, 0)


def test_columns_without_a_name_count(tmp_path):
  (row,) = read(f"emotion,pixels,Usage,,\n3,{GOOD},PrivateTest,,\n")
  assert (row.split, row.label) == ("test", 3)


def test_a_table_without_usage_is_all_training():
  rows = list(read(f"emotion,pixels\n3,{GOOD}\n0,{GOOD}\n"))
  assert [(r.split, r.label) for r in rows] == [("train", 3), ("train", 0)]


def test_mark_quotes_and_further_columns_are_read():
  (row,) = read(
    f'\ufeff"id","emotion","pixels","Usage"\n5,"3","{GOOD}","PublicTest"\n'
  )
  assert (row.split, row.label, row.row) == ("validation", 3, 0)
  assert (row.image == 7).all()


@given(st_np.arrays(np.uint8, (48, 48)), st.integers(0, 6))
def test_any_row_survives_the_table(image, label):
  table = challenge_csv([Face("PrivateTest", label, image)])
  fields = table.splitlines()[1].split(b",")
  np.testing.assert_array_equal(
    fer2013_csv.parse_pixels(fields[1])[..., 0], image
  )
  assert fer2013_csv.parse_label(fields[0]) == label
  assert fer2013_csv.parse_usage(fields[2]) == "test"


@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_any_other_text_is_an_error(text):
  assume(text.decode("latin-1") not in class_names.FER2013_SPLITS)
  for parse in (fer2013_csv.parse_pixels, fer2013_csv.parse_usage):
    with pytest.raises(ValueError):
      parse(text)
