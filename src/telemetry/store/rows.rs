//! One sample as the store handles it, and the columns it has on disk.

use std::cmp::Ordering;
use std::sync::Arc;

use parquet::basic::{LogicalType, Repetition, Type as Physical};
use parquet::errors::ParquetError;
use parquet::schema::types::{Type, TypePtr};

use crate::telemetry::sample::Value;

/// A sample with all that is stored of it, borrowed from wherever it is.
#[derive(Clone, Debug)]
pub(super) struct Row<'a> {
    /// Bytes of the device's id.
    pub(super) device: [u8; 16],
    /// Name of the series.
    pub(super) key: &'a str,
    /// Milliseconds since the Unix epoch.
    pub(super) ts_ms: i64,
    /// The value.
    pub(super) value: Value<'a>,
    /// Number of the journal record it came with.
    pub(super) offset: u64,
    /// The credential of the connection it came by; 0 where it was not asked for.
    pub(super) credential: u64,
    /// The device's generation then; 0 where it was not asked for.
    pub(super) generation: u32,
}

impl Row<'_> {
    /// The order of files: by device, key and time; of equal ones the later record first, so that
    /// the first of them is the one that counts.
    pub(super) fn order(&self, other: &Row<'_>) -> Ordering {
        self.series_order(other)
            .then_with(|| other.offset.cmp(&self.offset))
    }

    /// The same without the record: equal means that one replaces the other.
    pub(super) fn series_order(&self, other: &Row<'_>) -> Ordering {
        self.device
            .cmp(&other.device)
            .then_with(|| self.key.cmp(other.key))
            .then_with(|| self.ts_ms.cmp(&other.ts_ms))
    }
}

/// Places of the columns in a file, in their order (`docs/history-format.md`).
pub(super) mod column {
    pub(in crate::telemetry::store) const DEVICE: usize = 0;
    pub(in crate::telemetry::store) const KEY: usize = 1;
    pub(in crate::telemetry::store) const TS: usize = 2;
    pub(in crate::telemetry::store) const LONG: usize = 3;
    pub(in crate::telemetry::store) const DOUBLE: usize = 4;
    pub(in crate::telemetry::store) const BOOL: usize = 5;
    pub(in crate::telemetry::store) const TEXT: usize = 6;
    pub(in crate::telemetry::store) const JSON: usize = 7;
    pub(in crate::telemetry::store) const OFFSET: usize = 8;
    pub(in crate::telemetry::store) const CREDENTIAL: usize = 9;
    pub(in crate::telemetry::store) const GENERATION: usize = 10;
}

/// Names of the columns, by place.
pub(super) const NAMES: [&str; 11] = [
    "device",
    "key",
    "ts",
    "long",
    "double",
    "bool",
    "text",
    "json",
    "offset",
    "credential",
    "generation",
];

/// The schema of every file.
///
/// # Errors
/// Never in practice: the schema is a constant of this file.
pub(super) fn schema() -> Result<TypePtr, ParquetError> {
    let field = |place: usize, kind: Physical| {
        let name = NAMES.get(place).copied().unwrap_or_default();
        let is_value = (column::LONG..=column::JSON).contains(&place);
        let repetition = if is_value {
            Repetition::OPTIONAL
        } else {
            Repetition::REQUIRED
        };
        Type::primitive_type_builder(name, kind).with_repetition(repetition)
    };
    let text = |place: usize| {
        field(place, Physical::BYTE_ARRAY).with_logical_type(Some(LogicalType::String))
    };
    let device = field(column::DEVICE, Physical::FIXED_LEN_BYTE_ARRAY)
        .with_length(16)
        .with_logical_type(Some(LogicalType::Uuid));
    let fields = [
        device,
        text(column::KEY),
        // Plain milliseconds: a device chooses them freely, and a timestamp type would keep other
        // programs from reading a file with one that is out of their range.
        field(column::TS, Physical::INT64),
        field(column::LONG, Physical::INT64),
        field(column::DOUBLE, Physical::DOUBLE),
        field(column::BOOL, Physical::BOOLEAN),
        text(column::TEXT),
        text(column::JSON),
        field(column::OFFSET, Physical::INT64),
        field(column::CREDENTIAL, Physical::INT64),
        field(column::GENERATION, Physical::INT32),
    ];
    let fields = fields
        .into_iter()
        .map(|field| field.build().map(Arc::new))
        .collect::<Result<_, _>>()?;
    let schema = Type::group_type_builder("samples").with_fields(fields);
    Ok(Arc::new(schema.build()?))
}
