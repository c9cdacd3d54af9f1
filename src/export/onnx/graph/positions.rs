//! How tokens know where they lie, inside attention: turned queries and keys, numbers added to the scores.

use super::NodeWriter;
use crate::backbone::{Layer, LearntAngles, relative_bias, rotary_turn};
use crate::export::onnx::builder::Attribute::{Int, Ints};
use crate::export::onnx::builder::ValueName;
use crate::nn::Pairs;
use candle_core::Result;

impl NodeWriter<'_> {
    /// Queries or keys (N, T, d), turned by their positions where these are rotary.
    pub(super) fn turned(&mut self, x: &str, index: usize) -> Result<ValueName> {
        let Some(rotary) = self.spec.positions.rotary() else { return Ok(x.to_owned()) };
        let heads = self.spec.attention.heads;
        let head_width = self.spec.width / heads;
        let Some(turn) = rotary_turn(self.spec, &self.model.params, index)? else { return Ok(x.to_owned()) };
        let [cos, sin] = turn.map(|table| table.transpose(0, 1)); // (T, 1 or heads, e / 2)
        let name =
            if rotary.learnt == LearntAngles::Nothing { "rotary".to_owned() } else { format!("blocks.{index}.rotary") };
        let cos = self.graph.tensor(&format!("{name}.cos"), &cos?)?;
        let sin = self.graph.tensor(&format!("{name}.sin"), &sin?)?;
        // Each half holds one channel of every pair.
        let x = match rotary.pairs {
            Pairs::Halves => self.reshape(x, &[0, 0, heads as i64, head_width as i64]),
            Pairs::Neighbours => self.swapped(x, [heads, head_width / 2, 2]),
        };
        let halves = self.graph.split_last(&x, 2);
        let mut product = |half: usize, factor: &str| self.graph.node("Mul", &[&halves[half], factor], &[]);
        let [a_cos, b_sin, b_cos, a_sin] = [product(0, &cos), product(1, &sin), product(1, &cos), product(0, &sin)];
        let first = self.graph.node("Sub", &[&a_cos, &b_sin], &[]);
        let second = self.graph.node("Add", &[&b_cos, &a_sin], &[]);
        let turned = self.graph.node("Concat", &[&first, &second], &[Int("axis", 3)]);
        Ok(match rotary.pairs {
            Pairs::Halves => self.reshape(&turned, &[0, 0, self.spec.width as i64]),
            Pairs::Neighbours => {
                let turned = self.swapped(&turned, [heads, 2, head_width / 2]);
                self.reshape(&turned, &[0, 0, self.spec.width as i64])
            }
        })
    }

    /// (N, T, a · b · c) to (N, T, a, c · b): the last two of the axes a, b and c change places.
    fn swapped(&mut self, x: &str, axes: [usize; 3]) -> ValueName {
        let [a, b, c] = axes.map(|side| side as i64);
        let x = self.reshape(x, &[0, 0, a, b, c]);
        let x = self.graph.node("Transpose", &[&x], &[Ints("perm", &[0, 1, 2, 4, 3])]);
        self.reshape(&x, &[0, 0, a, b * c])
    }

    /// What a block adds to the scores of attention (heads, T, T), where positions are relative.
    pub(super) fn relative(&mut self, index: usize) -> Result<Option<ValueName>> {
        let bias = relative_bias(self.spec, &self.model.params, index)?;
        bias.map(|bias| self.graph.tensor(&Layer::RelPos.whole().in_block(index).to_string(), &bias)).transpose()
    }
}
