//! A look at a file of `torch.save` before it is unpickled: what kind it is, and that it is not a bomb.
//!
//! candle's reader keeps every object on a stack and copies what is referred to twice, so that a few hundred kilobytes
//! can nest deeper than the stack of a thread or stand for more objects than fit into memory. Here only depths and
//! counts are kept.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use zip::{CompressionMethod, ZipArchive};

/// Far above the pickle of any model: it has names, shapes and types, the values lie beside it.
const MOST_BYTES: u64 = 64 << 20;
/// Deeper than any state dict, and shallow enough for every stack.
const MOST_DEPTH: u32 = 200;
/// Objects that a pickle may stand for when each reference is a copy.
const MOST_OBJECTS: u64 = 20_000_000;

/// What a file that is not an archive of `torch.save` is instead, with the way out; none when that cannot be told.
pub(super) fn other_kind(start: &[u8]) -> Option<&'static str> {
    let text = String::from_utf8_lossy(start).trim_start().to_lowercase();
    if text.starts_with("version https://git-lfs") {
        return Some("is a git-lfs pointer and not the weights: run `git lfs pull` in that repository");
    }
    if text.starts_with("<!doctype html") || text.starts_with("<html") {
        return Some("is a web page that was saved under this name: download the file itself");
    }
    if start.starts_with(&[0x80, 2]) || start.starts_with(&[0x80, 3]) || start.starts_with(&[0x80, 4]) {
        return Some(
            "was saved by PyTorch before 1.6, or by pickle alone: load it and save it again with a newer PyTorch, \
             `torch.save(torch.load(FILE, map_location=\"cpu\"), FILE)`",
        );
    }
    None
}

/// Checks the pickle in an archive of `torch.save`. Gives the class of a pickled model, when there is one.
///
/// # Errors
/// A message when it is not such an archive, or could not be read within bounds.
pub(super) fn inspect(path: &Path) -> Result<Option<String>, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut start = Vec::new();
    (&file).take(512).read_to_end(&mut start).map_err(|error| error.to_string())?;
    if let Some(kind) = other_kind(&start) {
        return Err(kind.into());
    }
    let damaged = |error: zip::result::ZipError| format!("not a file that PyTorch saved ({error})");
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(damaged)?;
    let names: Vec<String> =
        archive.file_names().map(|name| name.map(Cow::into_owned)).collect::<Result<_, _>>().map_err(damaged)?;
    if names.iter().any(|name| name.ends_with("/constants.pkl") || name.contains("/code/")) {
        return Err("is a TorchScript program: save its parameters, \
                    `torch.save(torch.jit.load(FILE, map_location=\"cpu\").state_dict(), \"pytorch_model.bin\")`"
            .into());
    }
    for index in 0..archive.len() {
        if archive.by_index_raw(index).map_err(damaged)?.compression() != CompressionMethod::Stored {
            return Err("is compressed, which PyTorch's own files are not: load it and save it again, \
                        `torch.save(torch.load(FILE, map_location=\"cpu\"), FILE)`"
                .into());
        }
    }
    let mut class = None;
    for name in names.iter().filter(|name| name.ends_with("data.pkl")) {
        let mut pickle = Vec::new();
        let entry = archive.by_name(name).map_err(damaged)?;
        entry.take(MOST_BYTES + 1).read_to_end(&mut pickle).map_err(|error| error.to_string())?;
        if pickle.len() as u64 > MOST_BYTES {
            return Err(format!("its {name} is larger than 64 MiB"));
        }
        let found = Scan { bytes: &pickle, stack: Vec::new(), memo: BTreeMap::new(), class: None }.run()?;
        class = class.or(found);
    }
    Ok(class)
}

/// What is known of an object.
#[derive(Debug, Clone, Copy)]
struct Extent {
    /// Nested objects, itself included; 0 = the mark that begins a group.
    depth: u32,
    /// Objects in it.
    objects: u64,
}

const MARK: Extent = Extent { depth: 0, objects: 0 };
const PLAIN: Extent = Extent { depth: 1, objects: 1 };

struct Scan<'a> {
    bytes: &'a [u8],
    stack: Vec<Extent>,
    memo: BTreeMap<u32, Extent>,
    class: Option<String>,
}

impl Scan<'_> {
    /// Follows the operations of a pickle; those that candle's reader does not know end the scan, as they will end it.
    fn run(mut self) -> Result<Option<String>, String> {
        while let Some(operation) = self.byte() {
            match operation {
                0x80 => drop(self.take(1)?),
                b'c' => self.global()?,
                b'(' => self.stack.push(MARK),
                b'K' => self.plain(1)?,
                b'M' => self.plain(2)?,
                b'J' => self.plain(4)?,
                b'G' => self.plain(8)?,
                b'X' => {
                    let length = self.number(4)?;
                    self.plain(length as usize)?;
                }
                0x8A => {
                    let length = self.number(1)?;
                    self.plain(length as usize)?;
                }
                b')' | b'N' | b'}' | b']' | 0x88 | 0x89 => self.plain(0)?,
                b't' => {
                    let extent = self.group()?;
                    self.wrap(extent)?;
                }
                b'Q' | 0x85 => self.join(1)?,
                0x86 | b'R' | b'b' | 0x81 => self.join(2)?,
                0x87 => self.join(3)?,
                b'a' => self.put_into(1)?,
                b's' => self.put_into(2)?,
                b'e' | b'u' => {
                    let group = self.group()?;
                    self.extend(group)?;
                }
                b'h' | b'j' => {
                    let at = self.number(if operation == b'h' { 1 } else { 4 })?;
                    let extent = self.memo.get(&at).copied().ok_or("it refers to an object that it does not have")?;
                    self.stack.push(extent);
                }
                b'q' | b'r' => {
                    let at = self.number(if operation == b'q' { 1 } else { 4 })?;
                    let top = self.stack.last().copied().ok_or("its stack is empty")?;
                    self.memo.insert(at, top);
                }
                _ => break,
            }
            let objects = self.stack.iter().rev().take(4).map(|extent| extent.objects).max().unwrap_or(0);
            if objects > MOST_OBJECTS {
                return Err(format!("its pickle stands for more than {MOST_OBJECTS} objects"));
            }
        }
        Ok(self.class)
    }

    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.bytes.split_first()?;
        self.bytes = rest;
        Some(first)
    }

    fn take(&mut self, count: usize) -> Result<&[u8], String> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or("its pickle ends too early")?;
        self.bytes = rest;
        Ok(taken)
    }

    fn number(&mut self, bytes: usize) -> Result<u32, String> {
        Ok(self.take(bytes)?.iter().rev().fold(0, |number, &byte| number << 8 | u32::from(byte)))
    }

    fn plain(&mut self, bytes: usize) -> Result<(), String> {
        self.take(bytes)?;
        self.stack.push(PLAIN);
        Ok(())
    }

    /// A class or function, by module and name.
    fn global(&mut self) -> Result<(), String> {
        let mut line = || -> Result<String, String> {
            let end = self.bytes.iter().position(|&byte| byte == b'\n').ok_or("its pickle ends too early")?;
            let text = String::from_utf8_lossy(self.take(end)?).into_owned();
            self.take(1)?;
            Ok(text)
        };
        let (module, name) = (line()?, line()?);
        let is_model = ["torch.nn.modules", "timm.", "transformers.", "open_clip.", "torchvision.", "__main__"];
        if is_model.iter().any(|start| module.starts_with(start)) && self.class.is_none() {
            self.class = Some(format!("{module}.{name}"));
        }
        self.stack.push(PLAIN);
        Ok(())
    }

    fn pop(&mut self) -> Result<Extent, String> {
        Ok(self.stack.pop().ok_or("its stack is empty")?)
    }

    /// Everything above the last mark.
    fn group(&mut self) -> Result<Extent, String> {
        let mut all = Extent { depth: 0, objects: 0 };
        loop {
            match self.pop()? {
                Extent { depth: 0, .. } => return Ok(all),
                one => all = both(all, one),
            }
        }
    }

    /// Pushes what holds these.
    fn wrap(&mut self, inner: Extent) -> Result<(), String> {
        if inner.depth >= MOST_DEPTH {
            return Err(format!("its pickle is nested deeper than {MOST_DEPTH} objects"));
        }
        self.stack.push(Extent { depth: inner.depth + 1, objects: inner.objects.saturating_add(1) });
        Ok(())
    }

    /// Replaces the top by what holds them.
    fn join(&mut self, count: usize) -> Result<(), String> {
        let all = self.pop_all(count)?;
        self.wrap(all)
    }

    /// Puts the top into the container below.
    fn put_into(&mut self, count: usize) -> Result<(), String> {
        let all = self.pop_all(count)?;
        self.extend(all)
    }

    fn pop_all(&mut self, count: usize) -> Result<Extent, String> {
        (0..count).try_fold(Extent { depth: 0, objects: 0 }, |all, _| Ok(both(all, self.pop()?)))
    }

    fn extend(&mut self, inner: Extent) -> Result<(), String> {
        let container = self.pop()?;
        let deeper = Extent { depth: container.depth.max(inner.depth + 1).saturating_sub(1), ..inner };
        let objects = container.objects.saturating_add(inner.objects).saturating_sub(1);
        self.wrap(Extent { objects, ..deeper })
    }
}

fn both(a: Extent, b: Extent) -> Extent {
    Extent { depth: a.depth.max(b.depth), objects: a.objects.saturating_add(b.objects) }
}
