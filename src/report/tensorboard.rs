//! `events.out.tfevents.…`: the curves of a run for TensorBoard.
//!
//! The file is a sequence of `TFRecord`s (length, its checksum, data, its checksum), each with one `Event` message. Field
//! numbers from `tensorflow/core/util/event.proto` and `framework/summary.proto`. A process that continues a run writes a
//! file of its own that begins with a session start: TensorBoard then forgets what an earlier process had logged from
//! that step on.

use crate::error::{Error, Result};
use crate::train::progress::EpochRecord;
use crc::{CRC_32_ISCSI, Crc};
use prost::Message;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

const CHECKSUM: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
/// `SessionLog.SessionStatus.START`
const START: i32 = 1;

#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
    #[prost(message, optional, tag = "7")]
    session_log: Option<SessionLog>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<ScalarValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScalarValue {
    #[prost(string, tag = "1")]
    tag: String,
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// Appends the epochs of one process to an event file.
#[derive(Debug)]
pub struct Events {
    path: PathBuf,
    file: File,
}

impl Events {
    /// Begins an event file in `folder` for the steps after `step`.
    pub fn create(folder: &Path, step: usize) -> Result<Self> {
        // TensorBoard takes the files of a folder in the order of their names.
        let mut seconds = now() as u64;
        let (path, file) = loop {
            let path = folder.join(format!("events.out.tfevents.{seconds:010}.vitadapt"));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => seconds += 1,
                opened => {
                    let file = opened.map_err(Error::io("write", &path))?;
                    break (path, file);
                }
            }
        };
        let mut events = Self { path, file };
        events.write(&Event { file_version: Some("brain.Event:2".into()), ..Event::at(0) })?;
        if step > 0 {
            events.write(&Event { session_log: Some(SessionLog { status: START }), ..Event::at(step + 1) })?;
        }
        Ok(events)
    }

    /// Writes the numbers of an epoch at its optimiser step.
    pub fn epoch(&mut self, record: &EpochRecord) -> Result<()> {
        let numbers = [
            ("loss/train", Some(record.train_loss)),
            ("loss/val", record.val_loss),
            ("accuracy/train", Some(record.train_accuracy)),
            ("accuracy/val", record.val_accuracy),
            ("learning_rate", Some(record.lr)),
            ("images_per_second", record.images_per_second),
            ("peak_memory_mib", record.peak_memory_bytes.map(|bytes| bytes as f64 / f64::from(1 << 20))),
        ];
        let value = |(tag, number): (&str, Option<f64>)| {
            let number = number.filter(|number| number.is_finite())?;
            Some(ScalarValue { tag: tag.to_owned(), simple_value: Some(number as f32) })
        };
        let summary = Summary { value: numbers.into_iter().filter_map(value).collect() };
        self.write(&Event { summary: Some(summary), ..Event::at(record.step) })
    }

    /// One record in one write, so that a reader never sees half of one.
    fn write(&mut self, event: &Event) -> Result<()> {
        let data = event.encode_to_vec();
        let length = (data.len() as u64).to_le_bytes();
        let record = [&length, &masked(&length)[..], &data, &masked(&data)].concat();
        self.file.write_all(&record).map_err(Error::io("write", &self.path))
    }
}

impl Event {
    fn at(step: usize) -> Self {
        Self { wall_time: now(), step: step as i64, ..Self::default() }
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// The checksum as a `TFRecord` stores it: rotated and shifted, so that a checksum of data with checksums in it is sound.
fn masked(data: &[u8]) -> [u8; 4] {
    CHECKSUM.checksum(data).rotate_right(15).wrapping_add(0xA282_EAD8).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> Vec<Event> {
        let bytes = std::fs::read(path).unwrap();
        let mut rest = bytes.as_slice();
        let mut events = Vec::new();
        while !rest.is_empty() {
            let length = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
            assert_eq!(rest[8..12], masked(&rest[..8]));
            let data = &rest[12..12 + length];
            assert_eq!(rest[12 + length..16 + length], masked(data));
            events.push(Event::decode(data).unwrap());
            rest = &rest[16 + length..];
        }
        events
    }

    /// `tensorboard.compat.tensorflow_stub.pywrap_tensorflow.masked_crc32c(b"123456789")` of TensorBoard 2.21 gives
    /// `0xC78A_B0E5`; the plain CRC-32C of that text is `0xE306_9283` (RFC 3720).
    #[test]
    fn checksums_are_those_of_tensorboard() {
        assert_eq!(CHECKSUM.checksum(b"123456789"), 0xE306_9283);
        assert_eq!(masked(b"123456789"), 0xC78A_B0E5u32.to_le_bytes());
    }

    #[test]
    fn epochs_come_back_and_a_second_process_starts_a_file_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let record = EpochRecord { epoch: 1, step: 7, train_loss: 0.5, val_accuracy: Some(0.75), ..Default::default() };
        let mut first = Events::create(folder.path(), 0).unwrap();
        first.epoch(&record).unwrap();
        let mut second = Events::create(folder.path(), 7).unwrap();
        second.epoch(&EpochRecord { step: 14, ..record }).unwrap();
        assert!(first.path < second.path);
        let events = read(&first.path);
        assert_eq!((events.len(), events[0].file_version.as_deref()), (2, Some("brain.Event:2")));
        let values = &events[1].summary.as_ref().unwrap().value;
        let tags: Vec<&str> = values.iter().map(|value| value.tag.as_str()).collect();
        assert_eq!(tags, ["loss/train", "accuracy/train", "accuracy/val", "learning_rate"]);
        assert_eq!((events[1].step, values[0].simple_value), (7, Some(0.5)));
        let events = read(&second.path);
        assert_eq!((events[1].session_log.as_ref().unwrap().status, events[1].step, events[2].step), (START, 8, 14));
    }
}
