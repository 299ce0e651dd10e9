//! Frames as Arrow record batches and back: what `scan` gives to the outside.

use std::sync::Arc;

use arrow_array::builder::{FixedSizeBinaryBuilder, StringBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, UInt64Type};
use arrow_array::{
    Array, ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, RecordBatchOptions, UInt64Array,
};
use arrow_schema::{DataType, Field, Schema};

use crate::Dataset;
use crate::column::{Kind, Spec, parse_column_name};
use crate::frame::{Column, Data, Frame};
use crate::texts::Interner;

fn data_type(kind: Kind) -> DataType {
    match kind {
        Kind::Text | Kind::Json => DataType::Utf8,
        Kind::Int => DataType::Int64,
        Kind::Uint => DataType::UInt64,
        Kind::Double => DataType::Float64,
        Kind::Bool | Kind::TraceHex => DataType::Boolean,
        Kind::Id8 => DataType::FixedSizeBinary(8),
        Kind::Id16 => DataType::FixedSizeBinary(16),
    }
}

/// A frame as a record batch.
pub fn batch_of(frame: &Frame) -> RecordBatch {
    let fields: Vec<Field> = frame
        .columns
        .iter()
        .map(|c| Field::new(&*c.spec.name, data_type(c.spec.kind), !c.spec.required))
        .collect();
    let arrays = frame.columns.iter().map(|c| array_of(c, frame.rows)).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(frame.rows));
    match RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options) {
        Ok(batch) => batch,
        // The arrays are made from the fields right above; only a bug here can disagree.
        Err(error) => unreachable!("a frame is a batch: {error}"),
    }
}

fn array_of(column: &Column, rows: usize) -> ArrayRef {
    let data = &column.data;
    match (data, column.spec.kind) {
        (Data::Text { .. }, _) => {
            let mut builder = StringBuilder::with_capacity(rows, rows * 16);
            for row in 0..rows {
                builder.append_option(data.text(row));
            }
            Arc::new(builder.finish())
        }
        (Data::Ids { width, .. }, _) => {
            let mut builder = FixedSizeBinaryBuilder::with_capacity(rows, *width as i32);
            for row in 0..rows {
                match data.id(row) {
                    // An id always has the builder's width.
                    Some(id) if builder.append_value(id).is_ok() => {}
                    _ => builder.append_null(),
                }
            }
            Arc::new(builder.finish())
        }
        (_, Kind::Double) => Arc::new(Float64Array::from_iter(
            (0..rows).map(|r| data.word(r).map(f64::from_bits)),
        )),
        (_, Kind::Bool | Kind::TraceHex) => {
            Arc::new(BooleanArray::from_iter((0..rows).map(|r| data.word(r).map(|w| w != 0))))
        }
        (_, Kind::Uint) => Arc::new(UInt64Array::from_iter((0..rows).map(|r| data.word(r)))),
        _ => Arc::new(Int64Array::from_iter((0..rows).map(|r| data.word(r).map(|w| w as i64)))),
    }
}

/// The frame that a record batch was made from; columns of other types than ours are left out.
pub fn frame_of(dataset: Dataset, batch: &RecordBatch) -> Frame {
    let schema = batch.schema();
    let columns = schema
        .fields()
        .iter()
        .zip(batch.columns())
        .filter_map(|(field, array)| {
            let kind = dataset
                .fixed()
                .iter()
                .find(|f| f.name == field.name().as_str())
                .map(|f| f.kind)
                .or_else(|| parse_column_name(field.name()).map(|(_, _, kind)| kind))?;
            if *array.data_type() != data_type(kind) {
                return None;
            }
            Some(Column {
                spec: Spec {
                    name: Arc::from(field.name().as_str()),
                    kind,
                    required: !field.is_nullable(),
                },
                data: data_of(kind, array)?,
            })
        })
        .collect();
    Frame {
        rows: batch.num_rows(),
        columns,
    }
}

fn data_of(kind: Kind, array: &ArrayRef) -> Option<Data> {
    let rows = array.len();
    let present = (array.null_count() > 0).then(|| (0..rows).map(|r| array.is_valid(r)).collect::<Vec<bool>>());
    let valid = |row: usize| present.as_ref().is_none_or(|p| p[row]);
    let values: Vec<u64> = match kind {
        Kind::Text | Kind::Json => {
            let strings = array.as_string_opt::<i32>()?;
            let mut interner = Interner::default();
            let codes = (0..rows)
                .map(|r| if valid(r) { interner.code(strings.value(r)) } else { 0 })
                .collect();
            return Some(Data::Text {
                codes,
                texts: Arc::new(interner.take()),
                plain: false,
            });
        }
        Kind::Id8 | Kind::Id16 => {
            let ids = array.as_fixed_size_binary_opt()?;
            let width = kind.id_width();
            let mut bytes = Vec::with_capacity(rows * width);
            for row in 0..rows {
                bytes.extend_from_slice(ids.value(row));
            }
            return Some(Data::Ids { width, bytes, present });
        }
        Kind::Int => array
            .as_primitive_opt::<Int64Type>()?
            .values()
            .iter()
            .map(|v| *v as u64)
            .collect(),
        Kind::Uint => array.as_primitive_opt::<UInt64Type>()?.values().to_vec(),
        Kind::Double => array
            .as_primitive_opt::<Float64Type>()?
            .values()
            .iter()
            .map(|v| v.to_bits())
            .collect(),
        Kind::Bool | Kind::TraceHex => {
            let bools = array.as_boolean_opt()?;
            (0..rows).map(|r| u64::from(bools.value(r))).collect()
        }
    };
    Some(Data::Words { values, present })
}
