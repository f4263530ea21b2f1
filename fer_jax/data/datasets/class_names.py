"""Classes of the datasets, and the official number of examples of each."""

import types
from collections.abc import Sequence

# In the order of the numbers 0-6 in the column `emotion`.
FER2013_CLASSES = (
  "angry",
  "disgust",
  "fear",
  "happy",
  "sad",
  "surprise",
  "neutral",
)

# The column `Usage` -> the split. The challenge published the ranking on
# PublicTest while it ran and decided it on PrivateTest.
FER2013_SPLITS = types.MappingProxyType(
  {"Training": "train", "PublicTest": "validation", "PrivateTest": "test"}
)

# Split -> examples of each class, in the order of FER2013_CLASSES; 35,887 in
# all.
FER2013_COUNTS = types.MappingProxyType(
  {
    "train": (3995, 436, 4097, 7215, 4830, 3171, 4965),
    "validation": (467, 56, 496, 895, 653, 415, 607),
    "test": (491, 55, 528, 879, 594, 416, 626),
  }
)

# The columns of votes in fer2013new.csv, in its order: eight expressions, then
# unknown and no face.
FERPLUS_COLUMNS = (
  "neutral",
  "happiness",
  "surprise",
  "sadness",
  "anger",
  "disgust",
  "fear",
  "contempt",
  "unknown",
  "NF",
)

# Target and number of classes -> rows kept in train, validation and test, where
# they are known.
FERPLUS_COUNTS = types.MappingProxyType(
  {
    ("majority", 8): (25060, 3199, 3153),
    ("distribution", 8): (27956, 3505, 3505),
    ("majority", 10): (28709, 3589, 3589),
    ("distribution", 10): (28709, 3589, 3589),
    ("multi_target", 10): (28709, 3589, 3589),
  }
)

# The only row, from 0, that has nine votes.
FERPLUS_SHORT_ROW = 10435

# Names of expressions in the releases that people have -> one name for each.
_EXPRESSIONS = {
  name: expression
  for expression, names in {
    "anger": "anger angry an",
    "contempt": "contempt contemptuous co",
    "disgust": "disgust disgusted di",
    "fear": "fear fearful afraid scared fe",
    "happiness": "happiness happy joy ha",
    "neutral": "neutral neutrality natural ne",
    "sadness": "sadness sad sa",
    "surprise": "surprise surprised suprise su",
  }.items()
  for name in names.split()
}


def expression_of(name: str) -> str | None:
  """Returns the expression that a name stands for, in any case; None if none.

  >>> expression_of("Happy"), expression_of(" anger"), expression_of("x")
  ('happiness', 'anger', None)
  """
  return _EXPRESSIONS.get(name.strip().lower())


def label_of(name: str, classes: Sequence[str]) -> int | None:
  """Returns the index of the class that a name stands for; None if none.

  By its name, never by its position: folders in alphabetical order are in
  another order than the labels (neutral before sad).

  >>> label_of("Happiness", FER2013_CLASSES), label_of("x", FER2013_CLASSES)
  (3, None)
  """
  expression = expression_of(name)
  found = [i for i, c in enumerate(classes) if expression_of(c) == expression]
  return found[0] if expression and found else None


def label_of_folder(name: str) -> int | None:
  """Returns FER2013's number of the class that a name stands for, or None.

  >>> label_of_folder("neutral"), label_of_folder("contempt")
  (6, None)
  """
  return label_of(name, FER2013_CLASSES)


# In the order of the numbers 1-7 in CK+'s Emotion files; their 0, neutral,
# is no sequence's label, so the neutral class, where it is wanted, comes last.
CKPLUS_CLASSES = (
  "anger",
  "contempt",
  "disgust",
  "fear",
  "happy",
  "sadness",
  "surprise",
  "neutral",
)

# Labeled sequences of each class but neutral; 327 in all, of 118 subjects
# (Lucey et al. 2010).
CKPLUS_COUNTS = (45, 18, 59, 25, 69, 28, 83)

# The column `emotion` of ckextended.csv -> the index in CKPLUS_CLASSES.
CKEXTENDED_LABELS = (0, 2, 3, 4, 5, 6, 7, 1)
# Its neutral rows: one of each of CK+'s 593 sequences, labeled or not.
CKEXTENDED_NEUTRAL = 593

# In the order of the numbers 1-7 in RAF-DB's list_patition_label.txt.
RAFDB_CLASSES = (
  "surprise",
  "fear",
  "disgust",
  "happiness",
  "sadness",
  "anger",
  "neutral",
)

# Examples of each class; 12,271 and 3,068 (Li et al. 2017).
RAFDB_COUNTS = types.MappingProxyType(
  {
    "train": (1290, 281, 717, 4772, 1982, 705, 2524),
    "test": (329, 74, 160, 1185, 478, 162, 680),
  }
)

# In the order of the numbers 0-7 in AffectNet's annotations; its 8-10 are none,
# uncertain and no face.
AFFECTNET_CLASSES = (
  "neutral",
  "happiness",
  "sadness",
  "surprise",
  "fear",
  "disgust",
  "anger",
  "contempt",
)

# Examples of each class; 287,651 and 3,999 (Mollahosseini et al. 2017, the
# release of manually annotated images).
AFFECTNET_COUNTS = types.MappingProxyType(
  {
    "train": (74874, 134415, 25459, 14090, 6378, 3803, 24882, 3750),
    "validation": (500, 500, 500, 500, 500, 500, 500, 499),
  }
)

JAFFE_CLASSES = (
  "anger",
  "disgust",
  "fear",
  "happiness",
  "neutral",
  "sadness",
  "surprise",
)

# Examples of each class; 213 of 10 subjects (Lyons et al. 1998).
JAFFE_COUNTS = (30, 29, 32, 31, 30, 31, 30)
