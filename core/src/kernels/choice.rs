//! The choice between a kernel and the composition of candle's operations, made in one place for all layers.
//!
//! On the CPU a kernel serves f32. On a GPU it serves f32, f16 and bf16 once it has passed a trial: before a kernel is
//! used for the first time in a type, it runs forward and backward on small values and is compared with the composition in
//! f64 on the CPU. One that differs or cannot be launched is refused, its layer is composed, and [`refused`] tells.
//! So a wrong kernel costs speed, never correctness.
//!
//! The environment variable `VITADAPT_KERNELS=composed` turns the GPU's kernels off, to compare speed.

use super::tape::{Tape, record, unrecorded};
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, DeviceLocation, Result, Tensor, Var};
use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};

/// An operation on N tensors that exists twice: as a kernel with a backward of its own and as a composition.
pub trait Fusible<const N: usize>: Sized {
    /// Whether the CPU has a kernel too.
    const ON_CPU: bool = true;

    /// Whether GPUs have a kernel.
    fn on_gpu(&self) -> bool {
        true
    }

    /// Tells apart what needs a trial of its own.
    fn kind(&self) -> &'static str;

    /// By the kernel.
    ///
    /// # Errors
    /// When shapes disagree or the device fails.
    fn kernel(&self, operands: [&Tensor; N]) -> Result<Tensor>;

    /// By candle's differentiable operations.
    ///
    /// # Errors
    /// When shapes disagree or the device fails.
    fn composed(&self, operands: [&Tensor; N]) -> Result<Tensor>;

    /// An operation of this kind on a few values, yet more than a warp and a block take, and the shapes of its operands.
    fn small(&self) -> (Self, [Vec<usize>; N]);
}

/// Runs the operation by its kernel where there is one to trust, else composed.
///
/// # Errors
/// When shapes disagree or the device fails.
pub fn run<F: Fusible<N>, const N: usize>(op: &F, operands: [&Tensor; N]) -> Result<Tensor> {
    if has_kernel(op, operands) { op.kernel(operands) } else { op.composed(operands) }
}

/// Whether there is a kernel to trust for these operands.
pub fn has_kernel<F: Fusible<N>, const N: usize>(op: &F, operands: [&Tensor; N]) -> bool {
    let Some(device) = operands.first().map(|x| x.device()) else { return false };
    match device.location() {
        DeviceLocation::Cpu => F::ON_CPU && operands.iter().all(|x| x.dtype() == DType::F32),
        DeviceLocation::Cuda { .. } if cfg!(feature = "cuda") => {
            op.on_gpu() && trusted(op, operands.map(Tensor::dtype), device)
        }
        _ => false,
    }
}

/// What a trial was of: the operation, the types of its operands (of at most three), the GPU.
type Trial = (&'static str, [&'static str; 3], usize);

/// The trials so far; a reason for each that failed.
static TRIALS: Mutex<BTreeMap<Trial, Option<String>>> = Mutex::new(BTreeMap::new());

fn trusted<F: Fusible<N>, const N: usize>(op: &F, dtypes: [DType; N], device: &Device) -> bool {
    dtypes.iter().all(|&dtype| bound(dtype).is_some())
        && stands_trial(op.kind(), &dtypes, device, || try_out(op, dtypes, device))
}

/// Whether a kernel on that GPU is to be used: where kernels are on and its trial, which is held when it is first asked for,
/// finds nothing that differs.
pub(super) fn stands_trial(
    kind: &'static str,
    dtypes: &[DType],
    device: &Device,
    hold: impl FnOnce() -> Result<Option<String>>,
) -> bool {
    let DeviceLocation::Cuda { gpu_id } = device.location() else { return false };
    if composed_only() {
        return false;
    }
    let trial = (kind, [0, 1, 2].map(|i| dtypes.get(i).map_or("", DType::as_str)), gpu_id);
    let trials = || TRIALS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = trials().get(&trial) {
        return known.is_none();
    }
    // The list is free meanwhile: a composition may try kernels of its own.
    let outcome = unrecorded(hold).unwrap_or_else(|error| Some(first_line(&error)));
    trials().entry(trial).or_insert(outcome).is_none()
}

fn first_line(error: &candle_core::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_owned()
}

/// Whether the environment turns the GPU's kernels off.
pub fn composed_only() -> bool {
    static COMPOSED: OnceLock<bool> = OnceLock::new();
    *COMPOSED.get_or_init(|| std::env::var_os("VITADAPT_KERNELS").is_some_and(|value| value == "composed"))
}

/// The kernels that failed their trial, each with its reason, for a warning.
pub fn refused() -> Vec<String> {
    let trials = TRIALS.lock().unwrap_or_else(PoisonError::into_inner);
    let line = |((kind, dtypes, gpu), reason): (&Trial, &Option<String>)| {
        let dtypes = dtypes.join(" ");
        let kernel = format!("the kernel {kind} ({}) on GPU {gpu}", dtypes.trim_end());
        reason.as_ref().map(|reason| format!("{kernel} is not used: {reason}"))
    };
    trials.iter().filter_map(line).collect()
}

/// How far a kernel that stores this type may be off, relative to the largest value; none for types without kernels.
fn bound(dtype: DType) -> Option<f64> {
    match dtype {
        DType::F32 => Some(1e-4),
        DType::F16 => Some(1e-2),
        DType::BF16 => Some(5e-2),
        _ => None,
    }
}

/// Output and gradients of the kernel against the composition in f64 on the CPU: what differs, if anything does.
fn try_out<F: Fusible<N>, const N: usize>(op: &F, dtypes: [DType; N], device: &Device) -> Result<Option<String>> {
    fn all<'a, const N: usize>(operands: &[&'a Tensor]) -> Result<[&'a Tensor; N]> {
        operands.try_into().map_err(|_| candle_core::Error::msg(format!("a trial needs {N} operands")))
    }
    let (small, shapes) = op.small();
    let kernel = |operands: &[&Tensor]| small.kernel(all(operands)?);
    let composed = |operands: &[&Tensor]| small.composed(all(operands)?);
    difference(&kernel, &composed, &shapes, &dtypes, device)
}

/// One of the two ways to compute an operation. Not generic: a trial is compiled once, not for every operation.
type Computed<'a> = &'a dyn Fn(&[&Tensor]) -> Result<Tensor>;

fn difference(
    kernel: Computed<'_>,
    composed: Computed<'_>,
    shapes: &[Vec<usize>],
    dtypes: &[DType],
    device: &Device,
) -> Result<Option<String>> {
    let drawn = |(seed, (shape, &dtype)): (usize, (&Vec<usize>, &DType))| wave(shape, seed as f64)?.to_dtype(dtype);
    let operands = shapes.iter().zip(dtypes).enumerate().map(drawn).collect::<Result<Vec<_>>>()?;
    let there = operands.iter().map(|x| x.to_device(device)).collect::<Result<Vec<_>>>()?;
    let here = operands.iter().map(|x| x.to_dtype(DType::F64)).collect::<Result<Vec<_>>>()?;
    for recorded in [false, true] {
        let (result, kernel) = results(&there, recorded, kernel)?;
        let (_, composed) = results(&here, recorded, composed)?;
        let bound = dtypes.iter().copied().chain([result]).filter_map(bound).fold(0.0, f64::max);
        for (which, (kernel, composed)) in kernel.iter().zip(&composed).enumerate() {
            let largest = composed.iter().fold(1.0, |largest: f64, x| largest.max(x.abs()));
            let off = kernel.iter().zip(composed).map(|(k, c)| (k - c).abs()).fold(0.0, f64::max) / largest;
            // A comparison that NaN fails.
            let near = kernel.iter().all(|x| x.is_finite()) && off <= bound;
            if !near || kernel.len() != composed.len() {
                let what = if which == 0 { "its output".to_owned() } else { format!("gradient {which}") };
                return Ok(Some(format!("{what} is off by {off:.1e}")));
            }
        }
    }
    Ok(None)
}

/// Values between -1.5 and 1.5 of which no two are alike.
fn wave(shape: &[usize], seed: f64) -> Result<Tensor> {
    let values = (0..shape.iter().product()).map(|i: usize| 1.5 * ((i as f64 + 0.37 * seed + 0.1) * 12.9898).sin());
    Tensor::from_vec(values.collect::<Vec<f64>>(), shape, &Device::Cpu)
}

/// The type of the output, the output, then the gradient of each operand. In an operation that is recorded, as in training,
/// the first operand has a gradient from elsewhere too, which some kernels add to their own.
fn results(operands: &[Tensor], recorded: bool, op: Computed<'_>) -> Result<(DType, Vec<Vec<f64>>)> {
    let vars = operands.iter().map(Var::from_tensor).collect::<Result<Vec<_>>>()?;
    let tensors: Vec<&Tensor> = vars.iter().map(Var::as_tensor).collect();
    let (output, tape) = if recorded { record(|| op(&tensors))? } else { (op(&tensors)?, Tape::default()) };
    let mut gradients = GradStore::default();
    for (x, seed) in [(&output, 9.0), (tensors[0], 5.0)].into_iter().take(1 + usize::from(recorded)) {
        let upstream = wave(x.dims(), seed)?.to_dtype(x.dtype())?.to_device(x.device())?;
        gradients.extend((x * upstream)?.sum_all()?.backward()?)?;
    }
    tape.backward(&mut gradients)?;
    let flat = |x: &Tensor| x.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>();
    let of = |var: &Var| gradients.get(var).map_or_else(|| Ok(Vec::new()), flat);
    let values = std::iter::once(flat(&output)).chain(vars.iter().map(of)).collect::<Result<_>>()?;
    Ok((output.dtype(), values))
}

/// What the trial of a layer's kernel on a GPU relies on, as far as the CPU can tell.
#[cfg(test)]
pub(crate) mod trials {
    use super::*;

    struct Composed<F>(F);

    impl<F: Fusible<N>, const N: usize> Fusible<N> for Composed<F> {
        fn kind(&self) -> &'static str {
            self.0.kind()
        }

        fn kernel(&self, operands: [&Tensor; N]) -> Result<Tensor> {
            self.0.composed(operands)
        }

        fn composed(&self, operands: [&Tensor; N]) -> Result<Tensor> {
            self.0.composed(operands)
        }

        fn small(&self) -> (Self, [Vec<usize>; N]) {
            let (small, shapes) = self.0.small();
            (Self(small), shapes)
        }
    }

    /// The kernel of the CPU passes, if there is one, and in every type of the GPU's the bounds leave room for rounding: with `types`
    /// of the operands, given that of the products, the composition passes against itself in f64.
    pub fn pass<F: Fusible<N>, const N: usize>(op: F, types: impl Fn(DType) -> [DType; N]) {
        if F::ON_CPU {
            assert_eq!(try_out(&op, [DType::F32; N], &Device::Cpu).unwrap(), None);
        }
        if !op.on_gpu() {
            return;
        }
        let composed = Composed(op);
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            assert_eq!(try_out(&composed, types(dtype), &Device::Cpu).unwrap(), None, "{dtype:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// x w as a kernel might get it wrong.
    struct Product {
        output: f64,
        gradient: f64,
    }

    impl Fusible<2> for Product {
        fn kind(&self) -> &'static str {
            "product"
        }

        fn kernel(&self, [x, w]: [&Tensor; 2]) -> Result<Tensor> {
            // A gradient of w that is off while the value is not.
            let silent = ((w - w.detach())? * self.gradient)?;
            ((x * w)? + silent)? * self.output
        }

        fn composed(&self, [x, w]: [&Tensor; 2]) -> Result<Tensor> {
            x * w
        }

        fn small(&self) -> (Self, [Vec<usize>; 2]) {
            (Self { ..*self }, [vec![3, 4], vec![3, 4]])
        }
    }

    fn tried(output: f64, gradient: f64, dtype: DType) -> Option<String> {
        try_out(&Product { output, gradient }, [dtype; 2], &Device::Cpu).unwrap()
    }

    #[test]
    fn a_trial_finds_wrong_values_gradients_and_nan() {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            assert_eq!(tried(1.0, 0.0, dtype), None);
            assert!(tried(1.2, 0.0, dtype).unwrap().starts_with("its output is off"));
            assert!(tried(1.0, 0.2, dtype).unwrap().starts_with("gradient 2 is off"));
            assert!(tried(f64::NAN, 0.0, dtype).is_some());
        }
        assert!(tried(1.0002, 0.0, DType::F32).is_some());
    }
}
