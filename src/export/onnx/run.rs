//! Evaluates an exported file node by node, by what ONNX's `Operators.md` says of each operator.
//!
//! It knows the operators that `graph` writes, on plain candle operations and none of this crate's own layers, so that
//! a mistake in the one is not a mistake in the other. It is here to check files, not to serve them.

use super::proto::{AttributeProto, FLOAT, GraphProto, INT64, NodeProto, TensorProto};
use candle_core::{D, DType, Device, Result, Tensor, bail};
use std::collections::HashMap;

/// The output of that name for one input.
///
/// # Errors
/// When the graph uses what this does not know, or its shapes do not fit.
pub(super) fn output(graph: GraphProto, input: &str, value: &Tensor, output: &str) -> Result<Tensor> {
    let mut values: HashMap<String, Tensor> = HashMap::new();
    for constant in graph.initializer {
        let name = constant.name.clone().unwrap_or_default();
        values.insert(name, decoded(&constant)?);
    }
    values.insert(input.to_owned(), value.clone());
    for node in &graph.node {
        let inputs = node.input.iter().map(|name| match values.get(name) {
            Some(value) => Ok(value.clone()),
            None => bail!("{:?} reads {name:?}, which nothing before it gives", node.name),
        });
        let results = evaluate(node, &inputs.collect::<Result<Vec<_>>>()?)?;
        values.extend(node.output.iter().cloned().zip(results));
        if node.output.iter().any(|name| name == output) {
            break;
        }
    }
    let Some(value) = values.remove(output) else { bail!("the graph has no output {output:?}") };
    Ok(value)
}

fn decoded(constant: &TensorProto) -> Result<Tensor> {
    let shape: Vec<usize> = constant.dims.iter().map(|&dim| dim as usize).collect();
    let raw = constant.raw_data.as_deref().unwrap_or_default();
    let dtype = match constant.data_type {
        Some(FLOAT) => DType::F32,
        Some(INT64) => DType::I64,
        other => bail!("constants of type {other:?} are not known"),
    };
    if raw.len() != shape.iter().product::<usize>() * dtype.size_in_bytes() {
        bail!("{:?} has {} bytes for the shape {shape:?}", constant.name, raw.len());
    }
    Tensor::from_raw_buffer(raw, dtype, &shape, &Device::Cpu)
}

fn evaluate(node: &NodeProto, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
    let (op, options) = (node.op_type.as_deref().unwrap_or_default(), Options(node));
    let result = match (op, inputs) {
        ("Add", [a, b]) => a.broadcast_add(b)?,
        ("Sub", [a, b]) => a.broadcast_sub(b)?,
        ("Mul", [a, b]) => a.broadcast_mul(b)?,
        ("Div", [a, b]) => a.broadcast_div(b)?,
        ("Max", [a, b]) => a.broadcast_maximum(b)?,
        ("ReduceL2", [x]) => x.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?,
        ("MatMul", [a, b]) => a.contiguous()?.broadcast_matmul(&b.contiguous()?)?,
        ("Erf", [x]) => x.erf()?,
        ("Tanh", [x]) => x.tanh()?,
        ("Sigmoid", [x]) => (((x * 0.5)?.tanh()? + 1.0)? * 0.5)?,
        ("Softmax", [x]) => softmax(x)?,
        ("LayerNormalization", [x, weight, bias]) => layer_norm(x, weight, bias, options.float("epsilon", 1e-5))?,
        ("Conv", [x, weight, rest @ ..]) => patches(x, weight, rest.first(), options.int("strides"))?,
        ("Reshape", [x, shape]) => reshape(x, shape)?,
        ("Unsqueeze", [x, axis]) => x.unsqueeze(dims(axis)?[0])?,
        ("Transpose", [x]) => x.permute(options.ints("perm"))?.contiguous()?,
        ("Concat", parts) => Tensor::cat(parts, options.int("axis"))?,
        ("Expand", [x, shape]) => x.broadcast_as(dims(shape)?)?.contiguous()?,
        ("Shape", [x]) => Tensor::new(&[x.dim(0)? as i64], &Device::Cpu)?,
        ("Gather", [x, index]) => x.narrow(1, index.to_scalar::<i64>()? as usize, 1)?.squeeze(1)?,
        ("Slice", [x, start, end, axis]) => {
            let (start, end, axis) = (dims(start)?[0], dims(end)?[0], dims(axis)?[0]);
            x.narrow(axis, start, end - start)?
        }
        ("ReduceMean", [x]) if options.is_last_axis() => x.mean_keepdim(D::Minus1)?,
        ("ReduceMean", [x]) => options.reduced(x.mean_keepdim(options.int("axes"))?)?,
        ("ReduceMax", [x]) => options.reduced(x.max_keepdim(options.int("axes"))?)?,
        ("Exp", [x]) => x.exp()?,
        ("Log", [x]) => x.log()?,
        ("Sqrt", [x]) => x.sqrt()?,
        ("Pow", [x, power]) => x.powf(f64::from(power.to_scalar::<f32>()?))?,
        ("TopK", [x, count]) => largest(x, options.int("axis"), dims(count)?[0])?,
        ("Split", [x]) => return x.chunk(node.output.len(), D::Minus1),
        _ => bail!("{op} of {} inputs is not known", inputs.len()),
    };
    Ok(vec![result])
}

struct Options<'a>(&'a NodeProto);

impl Options<'_> {
    fn find(&self, name: &str) -> Option<&AttributeProto> {
        self.0.attribute.iter().find(|attribute| attribute.name.as_deref() == Some(name))
    }

    fn ints(&self, name: &str) -> Vec<usize> {
        self.find(name)
            .map_or_else(Vec::new, |found| found.ints.iter().chain(&found.i).map(|&value| value as usize).collect())
    }

    /// The result of a reduction, whose axis `keepdims` keeps; by the standard it is 1 unless given.
    fn reduced(&self, kept: Tensor) -> Result<Tensor> {
        if self.ints("keepdims") == [0] { kept.squeeze(self.int("axes")) } else { Ok(kept) }
    }

    /// Whether a reduction goes along the last axis and keeps it.
    fn is_last_axis(&self) -> bool {
        self.find("axes").is_some_and(|axes| axes.ints == [-1]) && self.ints("keepdims") != [0]
    }

    /// One whole number, or the first of several equal ones.
    fn int(&self, name: &str) -> usize {
        self.ints(name).first().copied().unwrap_or(0)
    }

    fn float(&self, name: &str, default: f32) -> f64 {
        f64::from(self.find(name).and_then(|found| found.f).unwrap_or(default))
    }
}

fn softmax(x: &Tensor) -> Result<Tensor> {
    let shifted = x.broadcast_sub(&x.max_keepdim(D::Minus1)?)?.exp()?;
    shifted.broadcast_div(&shifted.sum_keepdim(D::Minus1)?)
}

fn layer_norm(x: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    centred.broadcast_div(&(variance + eps)?.sqrt()?)?.broadcast_mul(weight)?.broadcast_add(bias)
}

/// The `count` largest values along an axis, the largest first.
fn largest(x: &Tensor, axis: usize, count: usize) -> Result<Tensor> {
    let (sorted, _) = x.transpose(axis, D::Minus1)?.contiguous()?.sort_last_dim(false)?;
    sorted.narrow(D::Minus1, 0, count)?.transpose(axis, D::Minus1)
}

/// A convolution without padding.
fn patches(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, stride: usize) -> Result<Tensor> {
    let y = x.conv2d(weight, 0, stride, 1, 1)?;
    match bias {
        Some(bias) => y.broadcast_add(&bias.reshape((1, (), 1, 1))?),
        None => Ok(y),
    }
}

/// A shape in which 0 keeps a dimension and -1 takes what is left.
fn reshape(x: &Tensor, shape: &Tensor) -> Result<Tensor> {
    let wanted = shape.to_vec1::<i64>()?;
    let kept = |(axis, &dim): (usize, &i64)| match dim {
        0 => x.dim(axis),
        -1 => Ok(0),
        dim => Ok(dim as usize),
    };
    let mut shape = wanted.iter().enumerate().map(kept).collect::<Result<Vec<usize>>>()?;
    if let Some(free) = wanted.iter().position(|&dim| dim == -1) {
        let rest: usize = shape.iter().enumerate().filter(|(axis, _)| *axis != free).map(|(_, dim)| dim).product();
        shape[free] = x.elem_count() / rest.max(1);
    }
    x.contiguous()?.reshape(shape)
}

fn dims(list: &Tensor) -> Result<Vec<usize>> {
    Ok(list.to_vec1::<i64>()?.into_iter().map(|dim| dim as usize).collect())
}
