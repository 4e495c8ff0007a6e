"""The package's table of codes is that of the library."""

import unittest

import arctos
from arctos import _codes, _errors, _library


class Codes(unittest.TestCase):
    def test_every_code_of_the_library_has_its_name_in_the_table(self) -> None:
        library = _library.library()
        none = library.code_name(1)  # there is no positive code
        names = {code: library.code_name(code) for code in range(-1000, 1)}
        self.assertEqual({code: name for code, name in names.items() if name != none}, _codes.NAMES)

    def test_every_failure_has_its_class(self) -> None:
        self.assertEqual(set(_errors.CLASSES), set(_codes.NAMES) - {_codes.OK})
        self.assertEqual(len(set(_errors.CLASSES.values())), len(_errors.CLASSES))
        for code, kind in _errors.CLASSES.items():
            self.assertTrue(issubclass(kind, arctos.ArctosError))
            self.assertEqual("ARCTOS_" + _upper(kind.__name__), _codes.NAMES[code])
            self.assertIs(getattr(arctos, kind.__name__), kind)
            self.assertIn(kind.__name__, arctos.__all__)

    def test_versions(self) -> None:
        self.assertRegex(arctos.version(), r"^\d+\.\d+\.\d+")
        self.assertEqual(arctos.abi_version(), 1)


def _upper(name: str) -> str:
    """``BadTask`` is ``BAD_TASK``."""
    return "".join("_" * (letter.isupper() and at > 0) + letter.upper() for at, letter in enumerate(name))


if __name__ == "__main__":
    unittest.main()
