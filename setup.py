"""Find the packages: melcap, and kernels/, which is installed as melcap.kernels."""

from setuptools import find_packages, setup

setup(
    license="MIT",  # pyproject.toml would need one form before setuptools 77 and another after
    packages=[
        *find_packages(include=["melcap", "melcap.*"]),
        *(f"melcap.{name}" for name in find_packages(include=["kernels", "kernels.*"])),
    ],
    package_dir={"melcap.kernels": "kernels"},
)
