//! Memory for images on their way to their size as input: all decoders of the process share one bound, so that many workers do
//! not hold many large images at once.

use super::image_error::{ImageError, check_dimensions};
use super::storage::Storage;
use crate::system::memory::free_memory_bytes;
use image::RgbImage;
use std::sync::{Condvar, LazyLock, Mutex, PoisonError};

/// What a pixel may need at the most: 16-bit RGBA, its RGB, and that in 8 bits. A JPEG's coefficients and a turned copy of
/// the image need less.
const BYTES_PER_PIXEL: u64 = 17;
/// The share of the free memory that images may take.
const SHARE: u64 = 4;
/// The bound where the system does not say how much memory is free.
const USUAL_BYTES: u64 = 1 << 30;

/// An image with the memory that it holds.
#[derive(Debug)]
pub struct Decoded {
    /// Upright, in 8 bits.
    pub image: RgbImage,
    /// How its pixels were stored.
    pub storage: Storage,
    /// To be kept until the image is no longer needed, where many are decoded at once.
    pub room: Room,
}

static DECODERS: LazyLock<Budget> =
    LazyLock::new(|| Budget::new(free_memory_bytes().map_or(USUAL_BYTES, |free| free / SHARE)));

#[derive(Debug)]
struct Budget {
    most: u64,
    taken: Mutex<u64>,
    freed: Condvar,
}

impl Budget {
    const fn new(most: u64) -> Self {
        Self { most, taken: Mutex::new(0), freed: Condvar::new() }
    }

    /// Waits until so many bytes are left, or nothing else is held: an image larger than the bound goes alone.
    fn take(&'static self, bytes: u64) -> Room {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        while *taken > 0 && *taken + bytes > self.most {
            taken = self.freed.wait(taken).unwrap_or_else(PoisonError::into_inner);
        }
        *taken += bytes;
        Room { bytes, budget: self }
    }
}

/// The memory of one image, free again when this is dropped. A thread that holds one must not ask for another, nor wait for
/// threads that may.
#[derive(Debug)]
pub struct Room {
    bytes: u64,
    budget: &'static Budget,
}

impl Room {
    /// Waits for memory for an image whose header gives this size.
    ///
    /// # Errors
    /// When no image of that size is decoded.
    pub(super) fn for_image(width: u64, height: u64) -> Result<Self, ImageError> {
        check_dimensions(width, height)?;
        Ok(DECODERS.take(width * height * BYTES_PER_PIXEL))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        *self.budget.taken.lock().unwrap_or_else(PoisonError::into_inner) -= self.bytes;
        self.budget.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn many_workers_hold_no_more_than_the_bound() {
        static BUDGET: Budget = Budget::new(100);
        let (held, most) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for worker in 0..16 {
                let (held, most) = (&held, &most);
                scope.spawn(move || {
                    for image in 0..50 {
                        let bytes = 10 + (worker * 7 + image * 13) % 50;
                        let _room = BUDGET.take(bytes);
                        most.fetch_max(held.fetch_add(bytes, Ordering::SeqCst) + bytes, Ordering::SeqCst);
                        std::thread::yield_now();
                        held.fetch_sub(bytes, Ordering::SeqCst);
                    }
                });
            }
        });
        let most = most.into_inner();
        assert!((60..=100).contains(&most), "{most}");
        // One that is larger than all of it goes alone.
        drop(BUDGET.take(1000));
        assert_eq!(*BUDGET.taken.lock().unwrap(), 0);
    }
}
