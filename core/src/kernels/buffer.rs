//! Buffers that a thread uses again and again: what one step computes on the way lies where that of the step before lay,
//! so that no memory is asked for, zeroed or paged in.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

thread_local! {
    /// Buffers of this thread that nobody uses at the moment.
    static FREE: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Most buffers that a thread keeps: those of a block's forward and backward and of what all blocks keep.
const MOST: usize = 256;

/// Values that go back to their thread when dropped.
#[derive(Debug, Default)]
pub struct Buffer(Vec<f32>);

impl Buffer {
    /// A buffer of `len` values, whatever they are.
    pub fn new(len: usize) -> Self {
        let reused = FREE.try_with(|free| {
            let mut free = free.try_borrow_mut().ok()?;
            let fits = |buffer: &Vec<f32>| (len..=2 * len).contains(&buffer.capacity());
            let best = (0..free.len()).filter(|&i| fits(&free[i])).min_by_key(|&i| free[i].capacity())?;
            Some(free.swap_remove(best))
        });
        let mut values = reused.ok().flatten().unwrap_or_default();
        values.resize(len, 0.0);
        Self(values)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let values = std::mem::take(&mut self.0);
        if values.capacity() == 0 {
            return;
        }
        // While a thread ends, or inside another call, there is nothing to give it back to.
        let _ = FREE.try_with(|free| {
            if let Ok(mut free) = free.try_borrow_mut()
                && free.len() < MOST
            {
                free.push(values);
            }
        });
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.0
    }
}

/// Frees the buffers that this thread keeps.
pub(crate) fn free() {
    let _ = FREE.try_with(|free| free.try_borrow_mut().map(|mut free| free.clear()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_buffer_is_used_again() {
        let first = Buffer::new(1000);
        let place = first.as_ptr();
        drop(first);
        assert_ne!(Buffer::new(400).as_ptr(), place); // much too large for that
        let again = Buffer::new(900);
        assert_eq!((again.as_ptr(), again.len()), (place, 900));
        assert_ne!(Buffer::new(900).as_ptr(), again.as_ptr());
        let kept = || FREE.with_borrow(Vec::len);
        assert_ne!(kept(), 0);
        free();
        assert_eq!(kept(), 0);
    }
}
