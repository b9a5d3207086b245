"""Does to a Delta table of carebed's what other programs do to tables; prints the version that makes.

usage: foreign.py TABLE_FOLDER append | column | type"""

import sys

import pyarrow
from deltalake import DeltaTable, write_deltalake

folder, what = sys.argv[1:]


def with_column(rows, name, values):
    return rows.set_column(rows.schema.get_field_index(name), name, pyarrow.array(values))


rows = DeltaTable(folder).to_pyarrow_table().slice(0, 3)
rows = with_column(rows, "device_id", ["foreign"] * rows.num_rows)
if what == "append":
    write_deltalake(folder, rows, mode="append")
elif what == "column":
    rows = rows.append_column("note", pyarrow.array(["seen"] * rows.num_rows))
    write_deltalake(folder, rows, mode="append", schema_mode="merge")
elif what == "type":
    rows = with_column(rows, "value", [str(value) for value in rows["value"].to_pylist()])
    write_deltalake(folder, rows, mode="overwrite", schema_mode="overwrite")
print(DeltaTable(folder).version())
