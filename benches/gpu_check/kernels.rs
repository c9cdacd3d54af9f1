//! Every layer of a GPU against f64 on the CPU, output and gradients, at the shapes of real models, in each type; then a
//! whole model. `check.py` beside it runs this and puts the lines, JSON each, into its table.
//!
//! `cargo bench -p benches --bench gpu_check --features cuda -- DEVICE [MODEL_FOLDER] [--quick]`; DEVICE is cpu or cuda:0.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)] // a check stops at the first surprise

use candle_core::{DType, Device, Result, Tensor, Var};
use serde_json::json;
use vitadapt::backbone::{Backbone, Vit};
use vitadapt::data::transform::IMAGENET;
use vitadapt::kernels::{normalize, tape::record};
use vitadapt::nn::{Activation, LayerNorm, Linear, Mode, residual, softmax_attention, swiglu};
use vitadapt::train::accumulator::GradientAccumulator;

/// Tokens, width and heads: ViT-Ti to L at 224, 384 and 518 pixels, and widths that no tile divides.
const SHAPES: [(usize, usize, usize); 10] = [
    (197, 192, 3),
    (197, 384, 6),
    (197, 768, 12),
    (197, 1024, 16),
    (577, 384, 6),
    (1370, 384, 6),
    (1370, 1024, 16),
    (50, 24, 3),
    (257, 1280, 16),
    (257, 1408, 16),
];

/// How far a result may be off, relative to the largest value, as in the trial before a kernel is used.
fn bound(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 1e-4,
        DType::F16 => 1e-2,
        _ => 5e-2,
    }
}

/// Values between -1.5 and 1.5 of which no two are alike.
fn wave(shape: &[usize], seed: usize) -> Tensor {
    let values =
        (0..shape.iter().product()).map(|i: usize| 1.5 * ((i as f64 + 0.37 * seed as f64 + 0.1) * 12.9898).sin());
    Tensor::from_vec(values.collect::<Vec<f64>>(), shape, &Device::Cpu).unwrap()
}

/// Output and gradients of the operands, for a gradient of the output that is rounded to `dtype`.
fn results(operands: &[Tensor], dtype: DType, op: impl Fn(&[Tensor]) -> Result<Tensor>) -> Result<Vec<Tensor>> {
    let vars = operands.iter().map(Var::from_tensor).collect::<Result<Vec<_>>>()?;
    let tensors: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let y = op(&tensors)?;
    let upstream = wave(y.dims(), 9).to_dtype(dtype)?.to_dtype(y.dtype())?.to_device(y.device())?;
    let gradients = (&y * upstream)?.sum_all()?.backward()?;
    let of_vars = vars.iter().map(|var| gradients.get(var).unwrap().clone());
    [y.detach()].into_iter().chain(of_vars).map(|x| x.to_device(&Device::Cpu)?.to_dtype(DType::F64)).collect()
}

/// The largest difference, relative to the largest value; NaN where something is not finite.
fn off(got: &Tensor, expected: &Tensor) -> f64 {
    let largest = |x: &Tensor| x.flatten_all().unwrap().abs().unwrap().max(0).unwrap().to_scalar::<f64>().unwrap();
    let sum = got.sum_all().unwrap().to_scalar::<f64>().unwrap();
    if sum.is_finite() { largest(&(got - expected).unwrap()) / largest(expected).max(1e-30) } else { f64::NAN }
}

struct Check {
    device: Device,
    passed: bool,
}

impl Check {
    /// Says how far values are off.
    fn say(&mut self, kind: &str, what: &str, dtype: DType, off: &[f64]) {
        let passed = off.iter().all(|off| *off <= bound(dtype)); // a comparison that NaN fails
        self.passed &= passed;
        // `max` would pass over what is no number.
        let worst = off.iter().copied().fold(0.0, |a: f64, b| if a.is_nan() || a > b { a } else { b });
        let line = json!({"kind": kind, "what": what, "dtype": dtype.as_str(), "off": worst, "bound": bound(dtype),
            "passed": passed});
        println!("{line}");
    }

    /// An operation on operands of these shapes and the type of what is rounded; those that stay f32 in mixed precision are
    /// named.
    fn op(
        &mut self,
        name: &str,
        shapes: &[&[usize]],
        single: &[usize],
        op: impl Fn(&[Tensor], DType) -> Result<Tensor>,
    ) {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let operands: Vec<Tensor> = (shapes.iter().enumerate())
                .map(|(i, shape)| {
                    wave(shape, i).to_dtype(if single.contains(&i) { DType::F32 } else { dtype }).unwrap()
                })
                .collect();
            let exact: Vec<Tensor> = operands.iter().map(|x| x.to_dtype(DType::F64).unwrap()).collect();
            let there: Vec<Tensor> = operands.iter().map(|x| x.to_device(&self.device).unwrap()).collect();
            let expected = results(&exact, dtype, |x| op(x, DType::F64)).unwrap();
            let what = format!("{name} {shapes:?}");
            match results(&there, dtype, |x| op(x, dtype)) {
                Ok(got) => {
                    let off: Vec<f64> = got.iter().zip(&expected).map(|(got, expected)| off(got, expected)).collect();
                    self.say("kernel", &what, dtype, &off);
                }
                Err(error) => {
                    println!(
                        "{}",
                        json!({"kind": "kernel", "what": what, "passed": false, "error": error.to_string()})
                    );
                    self.passed = false;
                }
            }
        }
    }

    fn kernels(&mut self, quick: bool) {
        for (tokens, width, heads) in SHAPES {
            if quick && ![(197, 768), (50, 24)].contains(&(tokens, width)) {
                continue;
            }
            let batch = if tokens > 1000 { 1 } else { 2 };
            let rows = batch * tokens;
            self.op("attention", &[&[batch, tokens, 3 * width]], &[], |x, _| softmax_attention(&x[0], heads));
            self.op("layer norm", &[&[rows, width], &[width], &[width]], &[0, 1, 2], |x, output| {
                LayerNorm::new(x[1].clone(), x[2].clone(), 1e-6).forward_as(&x[0], output)
            });
            self.op("linear", &[&[rows, width], &[width, width], &[width]], &[], |x, _| {
                Linear::new(x[1].clone(), Some(x[2].clone())).forward(&x[0])
            });
            for activation in [Activation::Gelu, Activation::GeluTanh, Activation::QuickGelu] {
                let name = format!("{activation:?}");
                self.op(&name, &[&[rows, 4 * width]], &[], |x, _| activation.forward(&x[0]));
                let (name, shapes) =
                    (format!("linear and {activation:?}"), [&[rows, width][..], &[4 * width, width], &[4 * width]]);
                self.op(&name, &shapes, &[], |x, _| {
                    let linear = Linear::new(x[1].clone(), Some(x[2].clone())).into();
                    activation.of_linear(&linear, &x[0], Mode::Eval)
                });
            }
            self.op("SwiGLU", &[&[rows, 2 * width]], &[], |x, _| swiglu(&x[0]));
            let stream = [batch, tokens, width];
            self.op("residual", &[&stream, &stream], &[0], |x, _| residual(&x[0], &x[1], None, None));
            self.op("residual, scaled", &[&stream, &stream, &[width]], &[0, 2], |x, _| {
                residual(&x[0], &x[1], Some(&x[2]), None)
            });
        }
    }

    /// Images that arrive as bytes.
    fn bytes(&mut self) {
        let shape = (2, 224, 224, 3);
        let bytes = (0..2 * 224 * 224 * 3).map(|i: u32| (i * 37 % 256) as u8).collect();
        let bytes = Tensor::from_vec(bytes, shape, &Device::Cpu).unwrap();
        let standardized = |device: &Device| {
            let values = normalize(&bytes.to_device(device)?, IMAGENET.0, IMAGENET.1)?;
            values.to_device(&Device::Cpu)?.to_dtype(DType::F64)
        };
        let (got, expected) = (standardized(&self.device).unwrap(), standardized(&Device::Cpu).unwrap());
        self.say("kernel", &format!("images as bytes {shape:?}"), DType::F32, &[off(&got, &expected)]);
    }

    /// Features and the gradient of every parameter of a whole model against those of the CPU in f32.
    fn model(&mut self, folder: &str) {
        let backbone = Backbone::load(folder, None).unwrap();
        let pixels = wave(&[&[2][..], &backbone.spec.image_size.shape()].concat(), 3).to_dtype(DType::F32).unwrap();
        let pass = |device: &Device, dtype: DType| {
            let params = backbone.params.clone().to_device(device).unwrap().train_where(|_| true).unwrap();
            let products = params.with_products_in(dtype).unwrap();
            let vit = Vit::new(&backbone.spec, &products, &[]).unwrap();
            let inputs = pixels.to_device(device).unwrap();
            let (features, tape) = record(|| vit.features(&inputs, Mode::Eval)?.to_dtype(DType::F32)).unwrap();
            let upstream = wave(features.dims(), 9).to_dtype(DType::F32).unwrap().to_device(device).unwrap();
            let loss = (&features * upstream).unwrap().sum_all().unwrap();
            let mut store = loss.backward().unwrap();
            tape.backward(&mut store).unwrap();
            let accumulator = GradientAccumulator::seen_as(&params, &products);
            accumulator.add(0, &mut store).unwrap();
            (features.detach(), accumulator.finish(1).unwrap())
        };
        let here = |x: &Tensor| x.to_device(&Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
        let expected = pass(&Device::Cpu, DType::F32);
        for dtype in [DType::F32, DType::BF16] {
            let (features, gradients) = pass(&self.device, dtype);
            self.say("model", "features", dtype, &[off(&here(&features), &here(&expected.0))]);
            let whole: Vec<f64> = gradients
                .names()
                .map(|name| norm_off(&here(&gradients.get(name).unwrap()), &here(&expected.1.get(name).unwrap())))
                .collect();
            self.say("model", &format!("gradients of {} parameters", whole.len()), dtype, &whole);
        }
    }
}

/// The norm of the difference, relative to the norm: single values of small gradients round too much in bf16.
fn norm_off(got: &Tensor, expected: &Tensor) -> f64 {
    let norm = |x: &Tensor| x.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt();
    norm(&(got - expected).unwrap()) / norm(expected).max(1e-30)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let quick = std::env::args().any(|argument| argument == "--quick");
    let device = match arguments.first().map_or("cpu", String::as_str) {
        "cpu" => Device::Cpu,
        name => Device::new_cuda_with_stream(name.trim_start_matches("cuda:").parse().unwrap()).unwrap(),
    };
    let mut check = Check { device, passed: true };
    check.kernels(quick);
    check.bytes();
    if let Some(folder) = arguments.get(1) {
        check.model(folder);
    }
    for line in vitadapt::kernels::refused() {
        println!("{}", json!({"kind": "refused", "what": line, "passed": false}));
        check.passed = false;
    }
    std::process::exit(i32::from(!check.passed));
}
