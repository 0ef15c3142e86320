"""Writes the files in npy/ with numpy (2.4.6 was used): python make_npy.py

Every array of numbers has 24 elements that count up in C order: element i is i, i / 2 for floats, i % 3 == 0 for bool.
"""

from pathlib import Path

import numpy as np

FOLDER = Path(__file__).with_name("npy")
DTYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8", "b1"]


def counting(dtype: str, *shape: int) -> np.ndarray:
    numbers = np.arange(24).reshape(shape)
    if dtype == "b1":
        return numbers % 3 == 0
    return (numbers / 2 if dtype.startswith("f") else numbers).astype(dtype)


def save(name: str, array: np.ndarray) -> None:
    np.save(FOLDER / f"{name}.npy", array)


for dtype in DTYPES:
    save(f"{dtype}-c", counting(dtype, 2, 3, 4))
    save(f"{dtype}-f", np.asfortranarray(counting(dtype, 2, 3, 4)))
for version in (1, 2, 3):
    with open(FOLDER / f"version-{version}.npy", "wb") as file:
        np.lib.format.write_array(file, counting("i2", 2, 3, 4), version=(version, 0))

save("one-axis", counting("u4", 24))
save("one-frame-f", np.asfortranarray(counting("u2", 1, 4, 6)))
save("nine-axes", counting("u1", 2, 1, 1, 1, 1, 1, 1, 1, 12))

# What cannot be published.
save("scalar", np.array(3.5))
save("no-elements", np.zeros((0, 3), "f4"))
save("big-endian", counting("f4", 4, 6).astype(">f4"))
save("complex", counting("f4", 4, 6).astype("c8"))
save("half", counting("f4", 4, 6).astype("f2"))
save("text", np.array(["tide", "gate"]))
save("date", np.array(["2026-11-20"], "M8[D]"))
records = np.zeros(3, [("grün", "<f4"), ("inner", [("a", "i2", (2, 2))])])
with open(FOLDER / "records.npy", "wb") as file:
    np.lib.format.write_array(file, records, version=(3, 0))
