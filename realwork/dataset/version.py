"""The version of the dataset's columns, which stands in every row; each version has one fixed schema."""

SCHEMA_VERSION = 3
