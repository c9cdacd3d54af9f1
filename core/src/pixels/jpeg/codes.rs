//! The Huffman codes of a scan, read without keeping what they mean.

pub(super) const SHORT: &str = "a scan ends too early";
pub(super) const WRONG: &str = "a scan holds invalid codes";

/// The coefficients of a scan and their bits.
#[derive(Clone, Copy)]
pub(super) struct SpectralRange {
    pub first: usize,
    pub last: usize,
    pub refines: bool,
}

/// Bytes that may stand between the last code and the next marker: some encoders pad.
const PADDING: usize = 4;

/// A table of codes: the first nine bits tell most of them.
pub(super) struct Huffman {
    /// Length and symbol by the next nine bits; length 0 = longer.
    short: Vec<(u8, u8)>,
    /// By length: the code behind its last one, left-aligned to 16 bits, and the offset from codes to symbols.
    limits: [(u32, i32); 17],
    symbols: Vec<u8>,
}

impl Huffman {
    pub(super) fn new(counts: &[u8; 16], symbols: &[u8]) -> Option<Self> {
        let mut table = Self { short: vec![(0, 0); 512], limits: [(0, 0); 17], symbols: symbols.to_vec() };
        let (mut code, mut at) = (0u32, 0usize);
        for length in 1..=16usize {
            let count = usize::from(counts[length - 1]);
            if code as usize + count > 1 << length {
                return None;
            }
            table.limits[length].1 = at as i32 - code as i32;
            for &symbol in &symbols[at..at + count] {
                if length <= 9 {
                    let first = (code as usize) << (9 - length);
                    table.short[first..first + (1 << (9 - length))].fill((length as u8, symbol));
                }
                code += 1;
            }
            at += count;
            table.limits[length].0 = code << (16 - length);
            code <<= 1;
        }
        Some(table)
    }
}

/// The bits of a scan.
pub(super) struct Codes<'a> {
    bytes: &'a [u8],
    at: usize,
    /// The next bits, in the highest places.
    held: u64,
    bits: u32,
    /// Blocks to come that end without a code of their own.
    run: u32,
}

impl<'a> Codes<'a> {
    /// Those from the start of `bytes` to the next marker.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, held: 0, bits: 0, run: 0 }
    }

    /// Holds 32 bits at least, where there are so many before the next marker.
    fn fill(&mut self) {
        while self.bits <= 56 {
            let byte = match self.bytes.get(self.at..) {
                Some([0xFF, 0, ..]) => {
                    self.at += 2;
                    0xFF
                }
                Some([byte, ..]) if *byte != 0xFF => {
                    self.at += 1;
                    *byte
                }
                _ => return,
            };
            self.held |= u64::from(byte) << (56 - self.bits);
            self.bits += 8;
        }
    }

    fn take(&mut self, count: u32) -> Result<u32, &'static str> {
        if self.bits < count {
            self.fill();
            if self.bits < count {
                return Err(SHORT);
            }
        }
        if count == 0 {
            return Ok(0);
        }
        let value = (self.held >> (64 - count)) as u32;
        self.held <<= count;
        self.bits -= count;
        Ok(value)
    }

    pub(super) fn skip(&mut self, count: u32) -> Result<(), &'static str> {
        self.take(count).map(drop)
    }

    fn symbol(&mut self, table: &Huffman) -> Result<u8, &'static str> {
        if self.bits < 16 {
            self.fill();
        }
        let (length, symbol) = table.short[(self.held >> 55) as usize];
        if length > 0 {
            self.skip(u32::from(length))?;
            return Ok(symbol);
        }
        let next = (self.held >> 48) as u32;
        for length in 10..=16 {
            let (limit, offset) = table.limits[length as usize];
            if next < limit {
                self.skip(length)?;
                let at = (next >> (16 - length)) as i32 + offset;
                return table.symbols.get(at as usize).copied().ok_or(WRONG);
            }
        }
        Err(if self.bits < 16 { SHORT } else { WRONG })
    }

    /// A value: its number of bits as a code, then the bits.
    pub(super) fn value(&mut self, table: &Huffman) -> Result<(), &'static str> {
        match self.symbol(table)? {
            bits @ 0..=16 => self.skip(u32::from(bits)),
            _ => Err(WRONG),
        }
    }

    /// The other values of a block in one piece.
    pub(super) fn baseline(&mut self, table: &Huffman) -> Result<(), &'static str> {
        let mut at = 1;
        while at < 64 {
            let symbol = self.symbol(table)?;
            let (zeros, bits) = (usize::from(symbol >> 4), u32::from(symbol & 15));
            if bits == 0 {
                if zeros < 15 {
                    return Ok(());
                }
                at += 16;
                continue;
            }
            at += zeros + 1;
            if at > 64 {
                return Err(WRONG);
            }
            self.skip(bits)?;
        }
        if at > 64 { Err(WRONG) } else { Ok(()) }
    }

    /// The upper bits of some values of a block.
    pub(super) fn first(&mut self, table: &Huffman, band: SpectralRange, filled: &mut u64) -> Result<(), &'static str> {
        if self.run > 0 {
            self.run -= 1;
            return Ok(());
        }
        let mut at = band.first;
        while at <= band.last {
            let symbol = self.symbol(table)?;
            let (zeros, bits) = (usize::from(symbol >> 4), u32::from(symbol & 15));
            match (zeros, bits) {
                (15, 0) => at += 16,
                (zeros, 0) => {
                    self.run = (1 << zeros) - 1 + self.take(zeros as u32)?;
                    return Ok(());
                }
                _ => {
                    at += zeros;
                    if at > band.last {
                        return Err(WRONG);
                    }
                    self.skip(bits)?;
                    *filled |= 1 << at;
                    at += 1;
                }
            }
        }
        Ok(())
    }

    /// One more bit of some values of a block: of each that is not zero, and of those that were so far.
    pub(super) fn refine(
        &mut self,
        table: &Huffman,
        band: SpectralRange,
        filled: &mut u64,
    ) -> Result<(), &'static str> {
        let mut at = band.first;
        while self.run == 0 && at <= band.last {
            let symbol = self.symbol(table)?;
            let (mut zeros, bits) = (usize::from(symbol >> 4), symbol & 15);
            match (zeros, bits) {
                (15, 0) => {}
                (zeros, 0) => {
                    self.run = (1 << zeros) + self.take(zeros as u32)?;
                    break;
                }
                (_, 1) => self.skip(1)?,
                _ => return Err(WRONG),
            }
            while at <= band.last {
                if *filled >> at & 1 == 1 {
                    self.skip(1)?;
                } else if zeros == 0 {
                    break;
                } else {
                    zeros -= 1;
                }
                at += 1;
            }
            if bits == 1 {
                if at > band.last {
                    return Err(WRONG);
                }
                *filled |= 1 << at;
            }
            at += 1;
        }
        if self.run > 0 {
            let rest = (at..=band.last).filter(|&at| *filled >> at & 1 == 1).count();
            (0..rest).try_for_each(|_| self.skip(1))?;
            self.run -= 1;
        }
        Ok(())
    }

    /// Goes on behind a restart marker, which must come next.
    pub(super) fn restart(&mut self) -> Result<(), &'static str> {
        self.align()?;
        match self.bytes.get(self.at..) {
            Some([0xFF, 0xD0..=0xD7, ..]) => self.at += 2,
            _ => return Err("a restart marker is not where it should be"),
        }
        self.run = 0;
        Ok(())
    }

    /// Nothing but padding may be left; gives the bytes taken.
    pub(super) fn end(mut self) -> Result<usize, &'static str> {
        self.align()?;
        Ok(self.at)
    }

    /// Moves to the next marker.
    fn align(&mut self) -> Result<(), &'static str> {
        self.fill();
        let mut left = self.bits as usize / 8;
        (self.held, self.bits) = (0, 0);
        while let Some(pair) = self.bytes.get(self.at..self.at + 2) {
            match pair {
                [0xFF, 0xFF] => self.at += 1,
                [0xFF, 0] => (self.at, left) = (self.at + 2, left + 1),
                [0xFF, _] => break,
                _ => (self.at, left) = (self.at + 1, left + 1),
            }
        }
        if left > PADDING { Err("a scan holds more than its blocks") } else { Ok(()) }
    }
}
