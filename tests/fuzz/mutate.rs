//! Changed copies of seeds.

use vitadapt::rng::{Purpose, Stream};

/// What parsers stumble over.
const PIECES: [&[u8]; 24] = [
    b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x80", b"\xff\xd9",
    b"-1", b"0", b"1e999", b"18446744073709551616", b"4294967296", b"NaN", b"null", b"true", b"[]", b"{}", b"\"\"",
    b"[[[[[[[[", b"{\"a\":", b"\r\n", b"\x1e", b"\xef\xbb\xbf", b"\\u0000", b"../",
];

/// An endless sequence of inputs, the same for the same seeds.
pub struct Mutator<'a> {
    seeds: &'a [Vec<u8>],
    stream: Stream,
}

impl<'a> Mutator<'a> {
    pub fn new(target: &str, seeds: &'a [Vec<u8>]) -> Self {
        let number = target.bytes().fold(0, |number: u64, byte| number.wrapping_mul(31).wrapping_add(byte.into()));
        Self { seeds, stream: Stream::new(number, Purpose::Corruption, &[]) }
    }

    fn below(&mut self, end: usize) -> usize {
        self.stream.below(end.max(1) as u64) as usize
    }

    /// A seed with one to eight changes.
    pub fn next(&mut self) -> Vec<u8> {
        let seed = self.below(self.seeds.len());
        let mut bytes = self.seeds[seed].clone();
        for _ in 0..=self.below(8) {
            self.change(&mut bytes);
        }
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len() + 1);
        let most = 1 << self.below(10);
        let length = self.below(most);
        let end = (at + length).min(bytes.len());
        match self.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
            1 if at < bytes.len() => bytes[at] = self.below(256) as u8,
            2 => drop(bytes.drain(at..end)),
            3 => {
                let copy = bytes[at..end].to_vec();
                let to = self.below(bytes.len() + 1);
                bytes.splice(to..to, copy);
            }
            4 => {
                let piece = PIECES[self.below(PIECES.len())];
                // In place, as a number of another size, or between.
                let end = if self.below(2) == 0 { (at + piece.len()).min(bytes.len()) } else { at };
                bytes.splice(at..end, piece.iter().copied());
            }
            5 => {
                let other = self.below(self.seeds.len());
                let other = &self.seeds[other];
                let from = self.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend(&other[from..]);
            }
            _ => bytes.truncate(at),
        }
    }
}
