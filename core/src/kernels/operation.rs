//! A differentiable operation of tensors, described once on slices, and the one adapter to candle's custom operations.

#[cfg(feature = "cuda")]
use super::cuda::Operand;
use super::{Fusible, contiguous, read_all, tape};
#[cfg(feature = "cuda")]
use candle_core::CudaStorage;
use candle_core::op::BackpropOp;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Storage, Tensor, bail};
use std::sync::OnceLock;

/// An operation of N tensors (one to three): its arithmetic on the values of contiguous tensors in f32, that of the GPU,
/// and the composition of candle's operations that serves everywhere else.
pub trait Operation<const N: usize>: Clone + Send + Sync + 'static {
    /// Tells apart what needs a trial of its own.
    fn name(&self) -> &'static str;

    /// The shape of the result: that of the first operand, unless it is said otherwise.
    ///
    /// # Errors
    /// When the operands have shapes that do not fit.
    fn shape(&self, operands: [&Shape; N]) -> Result<Shape> {
        Ok(operands[0].clone())
    }

    /// Writes the result to y, which has zeros.
    ///
    /// # Errors
    /// When the slices do not fit.
    fn forward(&self, operands: [&[f32]; N], y: &mut [f32]) -> Result<()>;

    /// The gradients of the operands from the result y and its gradient; those that are not `wanted` may be left out.
    ///
    /// # Errors
    /// When the slices do not fit.
    fn backward(
        &self,
        operands: [&[f32]; N],
        y: &[f32],
        dy: &[f32],
        wanted: [bool; N],
    ) -> Result<[Option<Vec<f32>>; N]>;

    /// Whether GPUs have a kernel too.
    fn on_gpu(&self) -> bool {
        true
    }

    /// [`Operation::forward`] on a GPU.
    ///
    /// # Errors
    /// When shapes or types disagree.
    #[cfg(feature = "cuda")]
    fn cuda_forward(&self, _operands: [Operand<'_>; N]) -> Result<CudaStorage> {
        bail!("{} has no kernel on GPUs", self.name())
    }

    /// [`Operation::backward`] on a GPU; operands that track no gradient get none.
    ///
    /// # Errors
    /// When shapes or types disagree.
    #[cfg(feature = "cuda")]
    fn cuda_backward(&self, _operands: [&Tensor; N], _y: &Tensor, _dy: &Tensor) -> Result<[Option<Tensor>; N]> {
        bail!("{} has no kernel on GPUs", self.name())
    }

    /// [`Operation::cuda_forward`] where backward follows, with what spares that a part of its work, if anything does.
    ///
    /// # Errors
    /// As of [`Operation::cuda_forward`].
    #[cfg(feature = "cuda")]
    fn cuda_forward_saving(&self, operands: [Operand<'_>; N]) -> Result<(CudaStorage, Option<Tensor>)> {
        Ok((self.cuda_forward(operands)?, None))
    }

    /// [`Operation::cuda_backward`] with what [`Operation::cuda_forward_saving`] has saved, and the gradient that the first
    /// operand has `before`, which is added to its own. An operation that uses either has this one in its place.
    ///
    /// # Errors
    /// As of [`Operation::cuda_backward`].
    #[cfg(feature = "cuda")]
    fn cuda_backward_with(
        &self,
        operands: [&Tensor; N],
        y: &Tensor,
        dy: &Tensor,
        _saved: Option<&Tensor>,
        before: Option<&Tensor>,
    ) -> Result<[Option<Tensor>; N]> {
        let mut gradients = self.cuda_backward(operands, y, dy)?;
        gradients[0] = tape::sum(gradients[0].take(), before)?;
        Ok(gradients)
    }

    /// By candle's differentiable operations.
    ///
    /// # Errors
    /// When shapes disagree or the device fails.
    fn composed(&self, operands: [&Tensor; N]) -> Result<Tensor>;

    /// An operation of this kind on a few values, yet more than a warp and a block take, and the shapes of its operands.
    fn small(&self) -> (Self, [Vec<usize>; N]);
}

impl<F: Operation<N>, const N: usize> Fusible<N> for F {
    fn on_gpu(&self) -> bool {
        Operation::on_gpu(self)
    }

    fn kind(&self) -> &'static str {
        self.name()
    }

    fn kernel(&self, operands: [&Tensor; N]) -> Result<Tensor> {
        let operands = operands.into_iter().map(Tensor::contiguous).collect::<Result<Vec<_>>>()?;
        let saved = operands.iter().any(Tensor::track_op).then(OnceLock::new);
        let op = CandleOp::<F, N> { op: self.clone(), saved };
        if tape::records(&operands) {
            let result = op.result(&operands)?;
            let backward = move |operands: &[Tensor], result: &Tensor, dy: &Tensor, before: Option<&Tensor>| {
                op.gradients(&operands.iter().collect::<Vec<_>>(), result, dy, before).map(Vec::from)
            };
            tape::push(operands, result.clone(), Box::new(backward));
            return Ok(result);
        }
        match operands.as_slice() {
            [x] => x.apply_op1(op),
            [x, y] => x.apply_op2(y, op),
            [x, y, z] => x.apply_op3(y, z, op),
            _ => bail!("an operation has one to three operands, {} has {N}", self.name()),
        }
    }

    fn composed(&self, operands: [&Tensor; N]) -> Result<Tensor> {
        Operation::composed(self, operands)
    }

    fn small(&self) -> (Self, [Vec<usize>; N]) {
        Operation::small(self)
    }
}

/// An operation on certain operands as candle takes it; of the three traits, that of N operands is used.
struct CandleOp<F, const N: usize> {
    op: F,
    /// Room for what a GPU's forward pass saves for backward; none where that does not follow.
    #[cfg_attr(not(feature = "cuda"), allow(dead_code))]
    saved: Option<OnceLock<Tensor>>,
}

/// So many of them; the number is known, but not to the compiler.
fn exactly<T: Copy, const N: usize>(operands: &[T]) -> Result<[T; N]> {
    match operands.try_into() {
        Ok(operands) => Ok(operands),
        Err(_) => bail!("{} operands instead of {N}", operands.len()),
    }
}

impl<F: Operation<N>, const N: usize> CandleOp<F, N> {
    fn cpu(&self, operands: &[(&CpuStorage, &Layout)]) -> Result<(CpuStorage, Shape)> {
        let operands = exactly::<_, N>(operands)?;
        let shape = self.op.shape(operands.map(|(_, layout)| layout.shape()))?;
        let mut values = [&[][..]; N];
        for (values, (storage, layout)) in values.iter_mut().zip(operands) {
            *values = contiguous(storage, layout)?;
        }
        let mut y = vec![0.0; shape.elem_count()];
        self.op.forward(values, &mut y)?;
        Ok((CpuStorage::F32(y), shape))
    }

    #[cfg(feature = "cuda")]
    fn cuda(&self, operands: &[Operand<'_>]) -> Result<(CudaStorage, Shape)> {
        let operands = exactly::<_, N>(operands)?;
        let shape = self.op.shape(operands.map(|operand| operand.shape()))?;
        let Some(room) = &self.saved else { return Ok((self.op.cuda_forward(operands)?, shape)) };
        let (result, saved) = self.op.cuda_forward_saving(operands)?;
        if let Some(saved) = saved {
            room.get_or_init(|| saved);
        }
        Ok((result, shape))
    }

    /// The result for contiguous operands, a variable without a graph.
    fn result(&self, operands: &[Tensor]) -> Result<Tensor> {
        let held: Vec<_> = operands.iter().map(Tensor::storage_and_layout).collect();
        let cpu = held.iter().map(|(storage, layout)| match &**storage {
            Storage::Cpu(storage) => Some((storage, *layout)),
            _ => None,
        });
        let (storage, shape) = match cpu.collect::<Option<Vec<_>>>() {
            Some(operands) => self.cpu(&operands).map(|(storage, shape)| (Storage::Cpu(storage), shape))?,
            None => self.elsewhere(&held.iter().map(|(storage, layout)| (&**storage, *layout)).collect::<Vec<_>>())?,
        };
        Ok(Tensor::from_storage(storage, shape, BackpropOp::none(), true))
    }

    #[cfg(feature = "cuda")]
    fn elsewhere(&self, operands: &[(&Storage, &Layout)]) -> Result<(Storage, Shape)> {
        let operands = operands.iter().map(|&(storage, layout)| match storage {
            Storage::Cuda(storage) => Ok(Operand::new(storage, layout)),
            _ => bail!("the operands of {} are on different devices", self.op.name()),
        });
        let (storage, shape) = self.cuda(&operands.collect::<Result<Vec<_>>>()?)?;
        Ok((Storage::Cuda(storage), shape))
    }

    #[cfg(not(feature = "cuda"))]
    fn elsewhere(&self, _: &[(&Storage, &Layout)]) -> Result<(Storage, Shape)> {
        bail!("the operands of {} are not on the CPU", self.op.name())
    }

    /// The gradients of the operands, that of the first added to what it has `before`.
    fn gradients(
        &self,
        operands: &[&Tensor],
        y: &Tensor,
        dy: &Tensor,
        before: Option<&Tensor>,
    ) -> Result<[Option<Tensor>; N]> {
        let tensors = exactly::<_, N>(operands)?;
        #[cfg(feature = "cuda")]
        if y.device().is_cuda() {
            return self.op.cuda_backward_with(tensors, y, dy, self.saved.as_ref().and_then(OnceLock::get), before);
        }
        let wanted = tensors.map(Tensor::track_op);
        let gradients = read_all(&[operands, &[y, dy]].concat(), |values| match values {
            [operands @ .., y, dy] => self.op.backward(exactly(operands)?, y, dy, wanted),
            _ => bail!("{} has no operands", self.op.name()),
        })?;
        let mut found: [Option<Tensor>; N] = [const { None }; N];
        for (((found, values), tensor), wanted) in found.iter_mut().zip(gradients).zip(tensors).zip(wanted) {
            if let Some(values) = values.filter(|_| wanted) {
                *found = Some(Tensor::from_vec(values, tensor.shape(), tensor.device())?);
            }
        }
        found[0] = tape::sum(found[0].take(), before)?;
        Ok(found)
    }

    /// The same for candle, to which a gradient has the type of its operand.
    fn typed_gradients(&self, operands: &[&Tensor], y: &Tensor, dy: &Tensor) -> Result<[Option<Tensor>; N]> {
        let mut gradients = self.gradients(operands, y, dy, None)?;
        for (gradient, operand) in gradients.iter_mut().zip(operands) {
            *gradient = gradient.take().map(|gradient| gradient.to_dtype(operand.dtype())).transpose()?;
        }
        Ok(gradients)
    }
}

impl<F: Operation<N>, const N: usize> CustomOp1 for CandleOp<F, N> {
    fn name(&self) -> &'static str {
        self.op.name()
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout) -> Result<(CpuStorage, Shape)> {
        self.cpu(&[(s1, l1)])
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, s1: &CudaStorage, l1: &Layout) -> Result<(CudaStorage, Shape)> {
        self.cuda(&[Operand::new(s1, l1)])
    }

    fn bwd(&self, x: &Tensor, res: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        Ok(self.typed_gradients(&[x], res, dy)?.into_iter().next().flatten())
    }
}

impl<F: Operation<N>, const N: usize> CustomOp2 for CandleOp<F, N> {
    fn name(&self) -> &'static str {
        self.op.name()
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<(CpuStorage, Shape)> {
        self.cpu(&[(s1, l1), (s2, l2)])
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, s1: &CudaStorage, l1: &Layout, s2: &CudaStorage, l2: &Layout) -> Result<(CudaStorage, Shape)> {
        self.cuda(&[Operand::new(s1, l1), Operand::new(s2, l2)])
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, res: &Tensor, dy: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let mut gradients = self.typed_gradients(&[x, y], res, dy)?.into_iter();
        Ok((gradients.next().flatten(), gradients.next().flatten()))
    }
}

impl<F: Operation<N>, const N: usize> CustomOp3 for CandleOp<F, N> {
    fn name(&self) -> &'static str {
        self.op.name()
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.cpu(&[(s1, l1), (s2, l2), (s3, l3)])
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        s1: &CudaStorage,
        l1: &Layout,
        s2: &CudaStorage,
        l2: &Layout,
        s3: &CudaStorage,
        l3: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        self.cuda(&[Operand::new(s1, l1), Operand::new(s2, l2), Operand::new(s3, l3)])
    }

    fn bwd(
        &self,
        x: &Tensor,
        y: &Tensor,
        z: &Tensor,
        res: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let mut gradients = self.typed_gradients(&[x, y, z], res, dy)?.into_iter();
        Ok((gradients.next().flatten(), gradients.next().flatten(), gradients.next().flatten()))
    }
}
