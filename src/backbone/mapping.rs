//! Where a canonical parameter lies in a library's file, and how it is stored there.

use candle_core::{Result, Tensor};

/// How a library stores one canonical parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WeightMapping {
    /// One tensor of the same shape.
    One(String),
    /// A token (1, 1, d) stored as (d).
    Token(String),
    /// A table of positions (1, T, d) stored as (T, d).
    Table(String),
    /// A table of positions (1, n · n, d) stored as (1, n, n, d).
    Grid(String),
    /// A table of positions (1, T, d) stored behind another row, as (1, T + 1, d).
    WithoutFirst(String),
    /// A token (1, 1, d) stored without its position, which is the first row of a table (1, `rows`, d).
    Positioned {
        /// The token and the table.
        names: [String; 2],
        /// Rows of the table.
        rows: usize,
    },
    /// Tensors to stack along the first dimension, such as separate queries, keys and values.
    Stack(Vec<String>),
    /// Separate queries, keys and values to stack, where several heads in turn share their keys and values: each gets a copy,
    /// which training may move apart.
    Grouped {
        /// Queries, keys and values.
        names: [String; 3],
        /// Heads that share.
        heads: usize,
        /// Channels of a head.
        head_dim: usize,
    },
    /// `count` consecutive thirds of a tensor that packs queries, keys and values along the first dimension.
    Thirds {
        /// The packed tensor.
        name: String,
        /// The first third that is taken.
        first: usize,
        /// How many are taken.
        count: usize,
    },
    /// One of `count` slices along the second dimension of a tensor that holds those of all blocks.
    OfBlock {
        /// The name of that tensor.
        name: String,
        /// The block.
        block: usize,
        /// How many there are.
        count: usize,
    },
    /// Consecutive rows of a tensor (`of`, d), or (1, `of`, d), that holds several kinds of tokens, as tokens (1, n, d).
    Rows {
        /// The name of that tensor.
        name: String,
        /// The first row that is taken.
        first: usize,
        /// Rows in all.
        of: usize,
        /// Whether the tensor has a first dimension of one.
        batched: bool,
    },
    /// The vectors of queries and values of a packed one, whose keys' third is zero.
    NoKey([String; 2]),
    /// A matrix stored as (in, out).
    Transposed(String),
    /// The kernels (d, C, p, p) of a patch embedding, stored as (d, p · p · C): a product with flattened patches, whose
    /// channels lie innermost.
    Patches(String),
    /// The same, stored as (d, C · p · p): channels lie outermost.
    Flattened(String),
}

impl WeightMapping {
    /// The tensors it needs.
    pub fn names(&self) -> &[String] {
        match self {
            Self::One(name)
            | Self::Token(name)
            | Self::Table(name)
            | Self::Transposed(name)
            | Self::Patches(name)
            | Self::Flattened(name)
            | Self::Grid(name)
            | Self::WithoutFirst(name)
            | Self::OfBlock { name, .. }
            | Self::Rows { name, .. }
            | Self::Thirds { name, .. } => std::slice::from_ref(name),
            Self::Stack(names) => names,
            Self::NoKey(names) | Self::Positioned { names, .. } => names,
            Self::Grouped { names, .. } => names,
        }
    }

    /// The shape that the tensor `which` of these has in the file when the parameter's is `shape`.
    pub fn stored(&self, shape: &[usize], which: usize) -> Vec<usize> {
        let mut stored = shape.to_vec();
        match self {
            Self::One(_) => {}
            Self::Token(_) => stored = shape[2..].to_vec(),
            Self::Table(_) => stored = shape[1..].to_vec(),
            Self::Stack(names) => stored[0] /= names.len(),
            Self::NoKey(_) => stored[0] /= 3,
            Self::WithoutFirst(_) => stored[1] += 1,
            Self::Positioned { rows, .. } => stored[1] = if which == 0 { 1 } else { *rows },
            Self::Grouped { heads, .. } => stored[0] /= if which == 0 { 3 } else { 3 * heads },
            Self::OfBlock { count, .. } => stored.insert(1, *count),
            Self::Thirds { count, .. } => stored[0] = 3 * stored[0] / count,
            Self::Transposed(_) => stored.reverse(),
            Self::Grid(_) => stored = vec![1, shape[1].isqrt(), shape[1].isqrt(), shape[2]],
            Self::Patches(_) | Self::Flattened(_) => stored = vec![shape[0], shape[1..].iter().product()],
            Self::Rows { of, batched: false, .. } => stored = vec![*of, shape[2]],
            Self::Rows { of, .. } => stored[1] = *of,
        }
        stored
    }

    /// The parameter of shape `shape` from the tensors that [`WeightMapping::names`] lists.
    ///
    /// # Errors
    /// When a tensor does not have the shape of [`WeightMapping::stored`].
    pub fn assemble(&self, parts: &[Tensor], shape: &[usize]) -> Result<Tensor> {
        if let (Self::NoKey(_), [query, value]) = (self, parts) {
            return Tensor::cat(&[query, &query.zeros_like()?, value], 0);
        }
        if let (Self::Grouped { heads, head_dim, .. }, [query, key, value]) = (self, parts) {
            let copied = |tensor: &Tensor| copied(tensor, *heads, *head_dim);
            return Tensor::cat(&[query, &copied(key)?, &copied(value)?], 0);
        }
        if let (Self::Positioned { .. }, [token, table]) = (self, parts) {
            return token + table.narrow(1, 0, 1)?;
        }
        let whole = Tensor::cat(parts, 0)?;
        match self {
            Self::One(_) | Self::Stack(_) | Self::NoKey(_) | Self::Grouped { .. } | Self::Positioned { .. } => {
                Ok(whole)
            }
            Self::WithoutFirst(_) => whole.narrow(1, 1, shape[1])?.force_contiguous(),
            Self::Token(_) | Self::Table(_) | Self::Grid(_) | Self::Flattened(_) => whole.reshape(shape),
            Self::Rows { first, of, .. } => {
                whole.reshape((1, *of, shape[2]))?.narrow(1, *first, shape[1])?.force_contiguous()
            }
            // A copy of its own, or the part would keep the whole alive.
            Self::OfBlock { block, .. } => whole.narrow(1, *block, 1)?.squeeze(1)?.force_contiguous(),
            Self::Thirds { first, count, .. } => {
                let third = whole.dim(0)? / 3;
                whole.narrow(0, first * third, count * third)?.force_contiguous()
            }
            Self::Transposed(_) => whole.t()?.contiguous(),
            Self::Patches(_) => {
                whole.reshape((shape[0], shape[2], shape[3], shape[1]))?.permute((0, 3, 1, 2))?.contiguous()
            }
        }
    }

    /// The tensors of the file, in the order of [`WeightMapping::names`], from the parameter: what [`WeightMapping::assemble`] undoes.
    ///
    /// # Errors
    /// When the parameter is a part of what the file packs in one tensor.
    pub fn disassemble(&self, parameter: &Tensor) -> Result<Vec<Tensor>> {
        let stored = self.stored(parameter.dims(), 0);
        match self {
            Self::One(_) | Self::Token(_) | Self::Table(_) | Self::Grid(_) | Self::Flattened(_) => {
                Ok(vec![parameter.reshape(stored)?])
            }
            Self::Stack(names) => parameter.chunk(names.len(), 0),
            Self::NoKey(_) => {
                let thirds = parameter.chunk(3, 0)?;
                Ok(vec![thirds[0].clone(), thirds[2].clone()])
            }
            Self::Transposed(_) => Ok(vec![parameter.t()?.contiguous()?]),
            Self::Patches(_) => Ok(vec![parameter.permute((0, 2, 3, 1))?.reshape(stored)?]),
            Self::Thirds { name, .. }
            | Self::OfBlock { name, .. }
            | Self::Rows { name, .. }
            | Self::WithoutFirst(name) => {
                candle_core::bail!("{name} packs more than one parameter")
            }
            Self::Positioned { names, .. } => candle_core::bail!("{} packs more than one parameter", names[1]),
            Self::Grouped { names, .. } => candle_core::bail!("{} is shared by several heads", names[1]),
        }
    }
}

/// The rows of each head `times` times.
fn copied(rows: &Tensor, times: usize, head_dim: usize) -> Result<Tensor> {
    let rest = &rows.dims()[1..];
    let split = |count: usize| [&[rows.dims()[0] / head_dim, count, head_dim], rest].concat();
    let shape = [&[rows.dims()[0] * times], rest].concat();
    rows.reshape(split(1))?.broadcast_as(split(times))?.contiguous()?.reshape(shape)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn every_form_gives_the_parameter_back() {
        let parameter = Tensor::arange(0f32, 12f32, &Device::Cpu).unwrap().reshape((6, 2)).unwrap();
        let name = || "x".to_owned();
        let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let rows = |from: usize, count: usize| parameter.narrow(0, from, count).unwrap();
        let gapped = Tensor::cat(&[rows(0, 2), rows(2, 2).zeros_like().unwrap(), rows(4, 2)], 0).unwrap();
        let cases = [
            (WeightMapping::One(name()), vec![parameter.clone()], parameter.clone()),
            (
                WeightMapping::Token(name()),
                vec![parameter.flatten_all().unwrap()],
                parameter.reshape((1, 1, 12)).unwrap(),
            ),
            (WeightMapping::Table(name()), vec![parameter.clone()], parameter.reshape((1, 6, 2)).unwrap()),
            (WeightMapping::Stack(vec![name(), name()]), vec![rows(0, 3), rows(3, 3)], parameter.clone()),
            (WeightMapping::Thirds { name: name(), first: 1, count: 2 }, vec![parameter.clone()], rows(2, 4)),
            (
                WeightMapping::OfBlock { name: name(), block: 1, count: 3 },
                vec![parameter.reshape((2, 3, 2)).unwrap()],
                Tensor::new(&[[2f32, 3.], [8., 9.]], &Device::Cpu).unwrap(),
            ),
            (
                WeightMapping::Grouped { names: [name(), name(), name()], heads: 2, head_dim: 1 },
                vec![rows(0, 2), rows(2, 1), rows(4, 1)],
                Tensor::cat(&[rows(0, 2), rows(2, 1), rows(2, 1), rows(4, 1), rows(4, 1)], 0).unwrap(),
            ),
            (
                WeightMapping::WithoutFirst(name()),
                vec![parameter.reshape((1, 6, 2)).unwrap()],
                rows(1, 5).reshape((1, 5, 2)).unwrap(),
            ),
            (
                WeightMapping::Positioned { names: [name(), name()], rows: 6 },
                vec![
                    Tensor::new(&[[[5f32, 7.]]], &Device::Cpu).unwrap(),
                    (&parameter + 1.0).unwrap().unsqueeze(0).unwrap(),
                ],
                Tensor::new(&[[[6f32, 9.]]], &Device::Cpu).unwrap(),
            ),
            (
                WeightMapping::Rows { name: name(), first: 2, of: 6, batched: false },
                vec![parameter.clone()],
                rows(2, 3).unsqueeze(0).unwrap(),
            ),
            (
                WeightMapping::Rows { name: name(), first: 2, of: 6, batched: true },
                vec![parameter.unsqueeze(0).unwrap()],
                rows(2, 3).unsqueeze(0).unwrap(),
            ),
            (WeightMapping::Flattened(name()), vec![parameter.clone()], parameter.reshape((6, 2, 1, 1)).unwrap()),
            (WeightMapping::NoKey([name(), name()]), vec![rows(0, 2), rows(4, 2)], gapped),
            (WeightMapping::Transposed(name()), vec![parameter.t().unwrap()], parameter.clone()),
            (
                WeightMapping::Grid(name()),
                vec![parameter.reshape((1, 2, 2, 3)).unwrap()],
                parameter.reshape((1, 4, 3)).unwrap(),
            ),
            (
                WeightMapping::Patches(name()),
                vec![Tensor::new(&[[0f32, 3., 1., 4., 2., 5.], [6., 9., 7., 10., 8., 11.]], &Device::Cpu).unwrap()],
                parameter.reshape((2, 2, 1, 3)).unwrap(),
            ),
        ];
        for (mapping, parts, expected) in cases {
            for (which, part) in parts.iter().enumerate() {
                assert_eq!(part.dims(), mapping.stored(expected.dims(), which), "{mapping:?}");
            }
            let assembled = mapping.assemble(&parts, expected.dims()).unwrap();
            assert_eq!(assembled.dims(), expected.dims());
            assert_eq!(values(&assembled), values(&expected), "{mapping:?}");
            match mapping.disassemble(&expected) {
                Err(_) => {
                    use WeightMapping::{Grouped, OfBlock, Positioned, Rows, Thirds, WithoutFirst};
                    let packs = matches!(
                        mapping,
                        Thirds { .. }
                            | OfBlock { .. }
                            | Rows { .. }
                            | Grouped { .. }
                            | WithoutFirst(_)
                            | Positioned { .. }
                    );
                    assert!(packs, "{mapping:?}");
                }
                Ok(again) => {
                    assert_eq!(again.len(), parts.len(), "{mapping:?}");
                    for (again, part) in again.iter().zip(&parts) {
                        assert_eq!((again.dims(), values(again)), (part.dims(), values(part)), "{mapping:?}");
                    }
                }
            }
        }
    }
}
