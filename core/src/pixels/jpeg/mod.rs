//! Whether a JPEG stream holds all of its image.
//!
//! Decoders fill what is missing with grey: a file that was cut and given an end marker, one without its last scans,
//! one with a stretch of other bytes all decode. Here the codes of every scan are read, without making pixels of them,
//! and must give exactly the blocks that the header promises (ITU T.81, annexes F and G).

mod codes;

use codes::{Codes, Huffman, SHORT, SpectralRange, WRONG};

/// The values that a progressive image sends bit by bit are whole from this on.
const ALL_BITS: u8 = 0;
/// Never sent so far.
const NO_BITS: u8 = u8::MAX;

/// Checks a baseline or progressive Huffman-coded stream; others are left to their decoder.
///
/// # Errors
/// What is missing or wrong.
pub fn check(bytes: &[u8]) -> Result<(), &'static str> {
    let mut image = Image::default();
    let mut at = 0;
    while let Some(marker) = next_marker(bytes, &mut at) {
        if marker == END_OF_IMAGE {
            return image.is_whole();
        } else if stands_alone(marker) {
            continue;
        }
        let length = bytes.get(at..at + 2).map_or(0, |pair| usize::from(u16::from_be_bytes([pair[0], pair[1]])));
        let segment = bytes.get(at + 2..at + length).ok_or(SHORT)?;
        at += length;
        match marker {
            // Arithmetic coding, lossless and hierarchical images.
            0xC3 | 0xC5..=0xC7 | 0xC9..=0xCB | 0xCD..=0xCF => return Ok(()),
            0xC0..=0xC2 => image.frame(segment, marker == 0xC2).ok_or(WRONG)?,
            0xC4 => image.tables(segment).ok_or(WRONG)?,
            0xDD => image.restart = segment.first_chunk().map_or(0, |pair| usize::from(u16::from_be_bytes(*pair))),
            0xDA => {
                // A height that follows the first scan.
                if image.height == 0 {
                    return Ok(());
                }
                at += image.scan(segment, &bytes[at..])?;
            }
            _ => {}
        }
    }
    Err(SHORT)
}

/// Walks the markers of a JPEG stream up to its end-of-image marker.
///
/// The decoder itself accepts a file that ends within its last row of blocks. Searching for the two bytes is not
/// enough either: an embedded thumbnail ends with the same marker.
pub fn reaches_end(bytes: &[u8]) -> bool {
    let mut at = 0;
    while let Some(marker) = next_marker(bytes, &mut at) {
        match marker {
            END_OF_IMAGE => return true,
            _ if stands_alone(marker) => {}
            _ => {
                let Some(&[high, low]) = bytes.get(at..at + 2) else { return false };
                at += usize::from(u16::from_be_bytes([high, low]));
            }
        }
    }
    false
}

const END_OF_IMAGE: u8 = 0xD9;

/// Whether no segment follows a marker: the start of an image, those of restarts within a scan.
fn stands_alone(marker: u8) -> bool {
    matches!(marker, 0xD8 | 0x01 | 0xD0..=0xD7)
}

/// The next marker, neither fill bytes nor a stuffed zero; `at` is then behind it.
fn next_marker(bytes: &[u8], at: &mut usize) -> Option<u8> {
    let skipped = bytes.get(*at..)?.windows(2).position(|pair| pair[0] == 0xFF && !matches!(pair[1], 0 | 0xFF))?;
    let marker = bytes[*at + skipped + 1];
    *at += skipped + 2;
    Some(marker)
}

#[derive(Default)]
struct Image {
    width: usize,
    height: usize,
    progressive: bool,
    components: Vec<Component>,
    /// DC tables, then AC tables.
    tables: [[Option<Huffman>; 4]; 2],
    /// MCUs between restart markers; 0 = none.
    restart: usize,
}

struct Component {
    id: u8,
    sampling: (usize, usize),
    /// Blocks in a row of interleaved MCUs.
    stride: usize,
    /// Lowest bit of each coefficient that was sent.
    sent: [u8; 64],
    /// A bit for each coefficient of each block that is not zero; only where bits are sent one by one.
    filled: Vec<u64>,
}

impl Image {
    fn frame(&mut self, segment: &[u8], progressive: bool) -> Option<()> {
        let [_, high, low, wide, narrow, count, rest @ ..] = segment else { return None };
        self.height = usize::from(u16::from_be_bytes([*high, *low]));
        self.width = usize::from(u16::from_be_bytes([*wide, *narrow]));
        self.progressive = progressive;
        self.components.clear();
        for component in rest.chunks_exact(3).take(usize::from(*count)) {
            let sampling = (usize::from(component[1] >> 4), usize::from(component[1] & 15));
            if !(1..=4).contains(&sampling.0) || !(1..=4).contains(&sampling.1) {
                return None;
            }
            let sent = [NO_BITS; 64];
            self.components.push(Component { id: component[0], sampling, stride: 0, sent, filled: Vec::new() });
        }
        let (columns, rows) = self.mcus();
        for component in &mut self.components {
            component.stride = columns * component.sampling.0;
            if progressive {
                component.filled = vec![0; component.stride * rows * component.sampling.1];
            }
        }
        (!self.components.is_empty()).then_some(())
    }

    /// The largest sampling factors.
    fn sampling(&self) -> (usize, usize) {
        let all = self.components.iter().map(|component| component.sampling);
        all.fold((1, 1), |most, one| (most.0.max(one.0), most.1.max(one.1)))
    }

    /// Interleaved MCUs in a row, and rows.
    fn mcus(&self) -> (usize, usize) {
        let (across, down) = self.sampling();
        (self.width.div_ceil(8 * across), self.height.div_ceil(8 * down))
    }

    fn tables(&mut self, mut segment: &[u8]) -> Option<()> {
        while let [kind, rest @ ..] = segment {
            let counts = rest.first_chunk::<16>()?;
            let total: usize = counts.iter().map(|&count| usize::from(count)).sum();
            let symbols = rest.get(16..16 + total)?;
            *self.tables.get_mut(usize::from(kind >> 4))?.get_mut(usize::from(kind & 15))? =
                Some(Huffman::new(counts, symbols)?);
            segment = &rest[16 + total..];
        }
        Some(())
    }

    /// Reads the codes of a scan; gives the bytes that they take.
    fn scan(&mut self, header: &[u8], bytes: &[u8]) -> Result<usize, &'static str> {
        let count = usize::from(*header.first().ok_or(WRONG)?);
        let chosen = header.get(1..1 + 2 * count).ok_or(WRONG)?;
        let &[first, last, bits] = header.get(1 + 2 * count..4 + 2 * count).ok_or(WRONG)? else { return Err(WRONG) };
        let mut parts = Vec::new();
        for pair in chosen.chunks_exact(2) {
            let index = self.components.iter().position(|component| component.id == pair[0]).ok_or(WRONG)?;
            parts.push((index, usize::from(pair[1] >> 4), usize::from(pair[1] & 15)));
        }
        let band = if self.progressive {
            SpectralRange { first: usize::from(first), last: usize::from(last), refines: bits >> 4 > 0 }
        } else {
            SpectralRange { first: 0, last: 63, refines: false }
        };
        if parts.is_empty() || band.first > band.last || band.last > 63 || (band.first > 0 && parts.len() > 1) {
            return Err(WRONG);
        }
        let mut codes = Codes::new(bytes);
        let (across, down) = self.sampling();
        let (columns, rows) = if let [(index, ..)] = parts.as_slice() {
            let (x, y) = self.components[*index].sampling;
            ((self.width * x).div_ceil(8 * across), (self.height * y).div_ceil(8 * down))
        } else {
            self.mcus()
        };
        for mcu in 0..columns * rows {
            if self.restart > 0 && mcu > 0 && mcu.is_multiple_of(self.restart) {
                codes.restart()?;
            }
            let (x, y) = (mcu % columns, mcu / columns);
            for &(index, dc, ac) in &parts {
                let (wide, high) = if parts.len() > 1 { self.components[index].sampling } else { (1, 1) };
                for inner in 0..wide * high {
                    let place = (y * high + inner / wide) * self.components[index].stride + x * wide + inner % wide;
                    self.block(index, place, (dc, ac), band, &mut codes)?;
                }
            }
        }
        let low = if self.progressive { bits & 15 } else { ALL_BITS };
        for (index, ..) in parts {
            self.components[index].sent[band.first..=band.last].fill(low);
        }
        codes.end()
    }

    fn block(
        &mut self,
        index: usize,
        place: usize,
        (dc, ac): (usize, usize),
        band: SpectralRange,
        codes: &mut Codes<'_>,
    ) -> Result<(), &'static str> {
        let tables = &self.tables;
        let table = |kind: usize, at: usize| tables[kind].get(at).and_then(Option::as_ref).ok_or(WRONG);
        if !self.progressive {
            codes.value(table(0, dc)?)?;
            return codes.baseline(table(1, ac)?);
        }
        if band.first == 0 {
            // A refined value sends one bit.
            return if band.refines { codes.skip(1) } else { codes.value(table(0, dc)?) };
        }
        let table = table(1, ac)?;
        let filled = self.components[index].filled.get_mut(place).ok_or(WRONG)?;
        if band.refines { codes.refine(table, band, filled) } else { codes.first(table, band, filled) }
    }

    fn is_whole(&self) -> Result<(), &'static str> {
        let missing = |component: &Component| component.sent.iter().any(|&bits| bits != ALL_BITS);
        if self.components.iter().any(missing) { Err("its last scans are missing") } else { Ok(()) }
    }
}
