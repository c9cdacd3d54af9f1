//! Inputs on their way to the device. On a GPU the next batch goes up while the current one computes.

use super::loader::Batch;
use crate::error::Result;
use candle_core::{Device, Tensor};
use std::iter;
use std::ops::Range;
use std::sync::mpsc::sync_channel;
use std::thread;

/// A batch, with its inputs on the device where they were sent ahead.
pub struct Sent {
    /// The batch itself.
    pub batch: Batch,
    /// Before `inputs`: its end is what makes freeing them safe.
    #[cfg(feature = "cuda")]
    crossing: Option<cuda::Crossing>,
    inputs: Option<Tensor>,
}

impl From<Batch> for Sent {
    /// A batch whose inputs are still on the host.
    fn from(batch: Batch) -> Self {
        Self {
            batch,
            #[cfg(feature = "cuda")]
            crossing: None,
            inputs: None,
        }
    }
}

impl Sent {
    /// The inputs (n, …) on the device, if they were sent.
    pub fn inputs(&self) -> Option<&Tensor> {
        self.inputs.as_ref()
    }

    /// The inputs of some samples on the device, as [`Batch::tensor`].
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn tensor(&self, samples: Range<usize>, row: &[usize], device: &Device) -> candle_core::Result<Tensor> {
        match &self.inputs {
            Some(inputs) => inputs.narrow(0, samples.start, samples.len()),
            None => self.batch.tensor(samples, row, device),
        }
    }

    /// To be called before the inputs are first used: they may still be under way, and bytes are standardised on arrival.
    #[cfg(feature = "cuda")]
    fn arrive(mut self) -> Result<Self> {
        if let Some(crossing) = &self.crossing {
            crossing.arrive()?;
        }
        if let (Some(resized), Some(bytes)) = (&self.batch.resized, &self.inputs) {
            // Without memory for them they are sent anew, in parts.
            let standardized = resized.standardized(bytes).ok();
            // Before the bytes are freed.
            self.crossing = None;
            self.inputs = standardized;
        }
        Ok(self)
    }
}

/// Hands the batches to `work`. On a GPU a thread of its own makes the next batch and sends its inputs there meanwhile, which
/// have the shape `row` each; elsewhere a batch is made when it is asked for.
pub fn ahead<R>(
    (device, row): (&Device, &[usize]),
    batches: impl Iterator<Item = Result<Batch>> + Send,
    work: impl FnOnce(&mut dyn Iterator<Item = Result<Sent>>) -> R,
) -> R {
    #[cfg(feature = "cuda")]
    if let Some(mut sender) = cuda::Sender::new(device) {
        let send = move |batch: Batch| sender.send(row, batch);
        return beside(batches, send, |sent| work(&mut sent.map(|sent| sent?.arrive())));
    }
    let _ = (device, row); // asked above
    work(&mut batches.map(|batch| batch.map(Sent::from)))
}

/// Hands to `work` what a thread of its own makes of each batch by `send`, which is at most one batch ahead.
#[cfg_attr(not(any(feature = "cuda", test)), allow(dead_code))] // there is nowhere to send to
fn beside<R>(
    batches: impl Iterator<Item = Result<Batch>> + Send,
    mut send: impl FnMut(Batch) -> Sent + Send,
    work: impl FnOnce(&mut dyn Iterator<Item = Result<Sent>>) -> R,
) -> R {
    thread::scope(|scope| {
        let (sender, receiver) = sync_channel(0);
        let sending = move || {
            for batch in batches {
                // Nobody receives any more when the work has ended early.
                if sender.send(batch.map(&mut send)).is_err() {
                    return;
                }
            }
        };
        if let Err(error) = thread::Builder::new().name("upload".into()).spawn_scoped(scope, sending) {
            return work(&mut iter::once(Err(candle_core::Error::wrap(error).into())));
        }
        // Taken by value, so that the thread is let go before it is waited for.
        let mut received = receiver.into_iter();
        work(&mut received)
    })
}

/// Copies on a stream of their own.
///
/// Device memory of a batch is taken, written and given back in the order of the copying stream. It is read on candle's
/// stream, which therefore waits for the copy before ([`Crossing::arrive`]), while the copying stream waits for all that
/// candle's was asked to do before it gives the memory back (the end of a [`Crossing`]). So nothing is read too early and
/// nothing freed or overwritten too soon, without candle's own tracking of events.
#[cfg(feature = "cuda")]
#[allow(unsafe_code)] // memory that is not yet written, on either side of the bus
mod cuda {
    use super::{Batch, Sent};
    use bytemuck::Pod;
    use candle_core::cuda_backend::cudarc::driver::{CudaEvent, CudaStream, DeviceRepr, PinnedHostSlice};
    use candle_core::cuda_backend::{CudaDType, WrapErr};
    use candle_core::op::BackpropOp;
    use candle_core::{CudaDevice, CudaStorage, Device, Result, Storage, Tensor};
    use std::sync::Arc;

    /// Sends inputs to a GPU.
    pub(super) struct Sender {
        device: CudaDevice,
        copies: Arc<CudaStream>,
        /// Page-locked: the only host memory from which a copy runs beside the program. It is kept, since locking pages
        /// takes longer than filling them.
        staging: Option<PinnedHostSlice<u8>>,
    }

    /// The way of one batch between two streams.
    pub(super) struct Crossing {
        arrived: CudaEvent,
        copies: Arc<CudaStream>,
        compute: Arc<CudaStream>,
    }

    impl Sender {
        /// None when the device is not a GPU, or has no second stream to give.
        pub(super) fn new(device: &Device) -> Option<Self> {
            let device = device.as_cuda_device().ok()?.clone();
            let copies = device.cuda_stream().context().new_stream().ok()?;
            Some(Self { device, copies, staging: None })
        }

        /// Starts sending the inputs of a batch, of that shape each. When that fails, as for lack of memory, they stay with
        /// the batch, and who needs them sends them in parts.
        pub(super) fn send(&mut self, row: &[usize], batch: Batch) -> Sent {
            let n = batch.labels.len();
            let started = match &batch.resized {
                Some(resized) => self.start(&resized.bytes, &resized.shape(n)),
                None if batch.inputs.is_empty() => return Sent::from(batch),
                None => self.start(&batch.inputs, &[&[n], row].concat()),
            };
            let (crossing, inputs) = started.ok().unzip();
            Sent { batch, crossing, inputs }
        }

        fn start<T: CudaDType + DeviceRepr + Pod>(
            &mut self,
            values: &[T],
            shape: &[usize],
        ) -> Result<(Crossing, Tensor)> {
            let (copies, bytes) = (self.copies.clone(), bytemuck::cast_slice(values));
            // The copy before this one may still be reading the staging memory.
            copies.synchronize().w()?;
            let staged = self.stage(bytes);
            let room = staged.map_or(bytes.len(), PinnedHostSlice::len);
            // SAFETY: what is read of it is what the copy below writes, and reading waits for that copy.
            let mut slice = unsafe { copies.alloc::<T>(room.div_ceil(size_of::<T>())) }.w()?;
            // SAFETY: all bytes make values of T.
            let target = unsafe { slice.transmute_mut::<u8>(room) };
            let mut target = target.ok_or_else(|| candle_core::Error::msg("there is no room for a batch"))?;
            match staged {
                Some(staging) => copies.memcpy_htod(staging, &mut target),
                // From other memory the call returns only when the values have been taken.
                None => copies.memcpy_htod(bytes, &mut target),
            }
            .w()?;
            let arrived = copies.record_event(None).w()?;
            let storage = Storage::Cuda(CudaStorage::wrap_cuda_slice(slice, self.device.clone()));
            let tensor = Tensor::from_storage(storage, shape, BackpropOp::none(), false);
            Ok((Crossing { arrived, copies, compute: self.device.cuda_stream() }, tensor))
        }

        /// Bytes in page-locked memory, perhaps with older ones behind them; none when there is no such memory.
        fn stage(&mut self, bytes: &[u8]) -> Option<&PinnedHostSlice<u8>> {
            if self.staging.as_ref().is_none_or(|staging| staging.len() < bytes.len()) {
                // SAFETY: all of it is written right below, before anything reads it.
                self.staging = unsafe { self.copies.context().alloc_pinned(bytes.len()) }.ok();
            }
            let staging = self.staging.as_mut()?;
            let start = staging.as_mut_ptr().ok()?;
            // SAFETY: the staging memory is at least as long and nobody else's, and no copy reads it any more.
            unsafe { start.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
            Some(staging)
        }
    }

    impl Drop for Sender {
        fn drop(&mut self) {
            // The last copy may still be reading the staging memory. An error is the device's, which nobody uses any more.
            let _ = self.copies.synchronize();
        }
    }

    impl Crossing {
        /// Makes what is computed from now on wait for the inputs.
        pub(super) fn arrive(&self) -> Result<()> {
            self.compute.wait(&self.arrived).w()
        }
    }

    impl Drop for Crossing {
        fn drop(&mut self) {
            if self.copies.join(&self.compute).is_err() {
                // Without an event to wait for, the program waits itself; when that fails too, the device is gone.
                let _ = self.compute.synchronize();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use candle_core::Device;

    fn batches(count: usize) -> impl Iterator<Item = Result<Batch>> + Send {
        (0..count).map(|i| Ok(Batch { inputs: vec![i as f32; 6], labels: vec![i, i], ..Batch::default() }))
    }

    fn send(batch: Batch) -> Sent {
        let inputs = Tensor::from_slice(&batch.inputs, (2, 3), &Device::Cpu).ok();
        Sent { inputs, ..Sent::from(batch) }
    }

    #[test]
    fn batches_come_in_order_with_their_inputs() {
        let seen = beside(batches(20), send, |sent| {
            sent.map(|sent| {
                let sent = sent.unwrap();
                let inputs = sent.inputs().unwrap().to_vec2::<f32>().unwrap();
                assert_eq!(inputs, [[sent.batch.labels[0] as f32; 3]; 2]);
                sent.batch.labels[0]
            })
            .collect::<Vec<_>>()
        });
        assert_eq!(seen, (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn errors_arrive_in_their_place_and_leaving_early_lets_the_thread_go() {
        let broken = || batches(2).chain([Err(Error::Numerics("no batch".into()))]).chain(batches(2));
        let seen: Vec<bool> = beside(broken(), send, |sent| sent.map(|sent| sent.is_ok()).collect());
        assert_eq!(seen, [true, true, false, true, true]);
        assert!(beside(batches(1000), send, |sent| sent.next().is_some()));
    }
}
