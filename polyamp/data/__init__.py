"""TFRecords: their schema, how they are made from data sets, and the one pipeline that trains from them."""
