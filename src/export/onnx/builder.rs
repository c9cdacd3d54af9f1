//! Builds a graph: nodes and constants with unique names.

use super::proto::{AttributeProto, FLOAT, GraphProto, INT64, NodeProto, TensorProto};
use crate::export::files::bytes;
use candle_core::{Result, Tensor};
use std::collections::BTreeSet;

pub(super) type ValueName = String;

pub(super) enum Attribute<'a> {
    Int(&'static str, i64),
    Float(&'static str, f32),
    Ints(&'static str, &'a [i64]),
}

#[derive(Default)]
pub(super) struct Builder {
    nodes: Vec<NodeProto>,
    constants: Vec<TensorProto>,
    /// Names of the constants.
    known: BTreeSet<String>,
}

impl Builder {
    /// Adds a node with one output, which is named after it.
    pub fn node(&mut self, op: &str, inputs: &[&str], attributes: &[Attribute<'_>]) -> ValueName {
        let name = format!("{}_{}", op.to_lowercase(), self.nodes.len());
        self.named(op, inputs, attributes, vec![name.clone()]);
        name
    }

    /// Adds a node whose outputs have the names `outputs`.
    pub fn named(&mut self, op: &str, inputs: &[&str], attributes: &[Attribute<'_>], outputs: Vec<ValueName>) {
        let (float, int, ints) = (1, 2, 7); // AttributeType
        let named = |name: &str, kind| AttributeProto {
            name: Some(name.to_owned()),
            r#type: Some(kind),
            ..AttributeProto::default()
        };
        let attribute = |attribute: &Attribute<'_>| match *attribute {
            Attribute::Int(name, i) => AttributeProto { i: Some(i), ..named(name, int) },
            Attribute::Float(name, f) => AttributeProto { f: Some(f), ..named(name, float) },
            Attribute::Ints(name, values) => AttributeProto { ints: values.to_vec(), ..named(name, ints) },
        };
        self.nodes.push(NodeProto {
            name: Some(format!("{op}_{}", self.nodes.len())),
            op_type: Some(op.to_owned()),
            input: inputs.iter().map(|&input| input.to_owned()).collect(),
            output: outputs,
            attribute: attributes.iter().map(attribute).collect(),
        });
    }

    /// Cuts the last axis of `x` in `count` equal parts.
    pub fn split_last(&mut self, x: &str, count: usize) -> Vec<ValueName> {
        let parts: Vec<ValueName> = (0..count).map(|part| format!("split_{}_{part}", self.nodes.len())).collect();
        self.named("Split", &[x], &[Attribute::Int("axis", -1)], parts.clone());
        parts
    }

    pub fn tensor(&mut self, name: &str, tensor: &Tensor) -> Result<ValueName> {
        if self.known.insert(name.to_owned()) {
            self.constants.push(TensorProto {
                name: Some(name.to_owned()),
                data_type: Some(FLOAT),
                dims: tensor.dims().iter().map(|&dim| dim as i64).collect(),
                raw_data: Some(bytes(tensor)?),
            });
        }
        Ok(name.to_owned())
    }

    pub fn scalar(&mut self, value: f32) -> ValueName {
        self.small(format!("number_{value:?}"), FLOAT, Vec::new(), value.to_le_bytes().to_vec())
    }

    /// A node of `x` and a number.
    pub fn with_number(&mut self, op: &str, x: &str, value: f32) -> ValueName {
        let number = self.scalar(value);
        self.node(op, &[x, &number], &[])
    }

    /// A list of whole numbers, such as a shape or axes.
    pub fn list(&mut self, values: &[i64]) -> ValueName {
        let name = values.iter().map(i64::to_string).collect::<Vec<_>>().join("_").replace('-', "m");
        let raw = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.small(format!("list_{name}"), INT64, vec![values.len() as i64], raw)
    }

    pub fn index(&mut self, value: i64) -> ValueName {
        self.small(format!("index_{value}"), INT64, Vec::new(), value.to_le_bytes().to_vec())
    }

    fn small(&mut self, name: String, data_type: i32, dims: Vec<i64>, raw: Vec<u8>) -> ValueName {
        if self.known.insert(name.clone()) {
            let tensor =
                TensorProto { name: Some(name.clone()), data_type: Some(data_type), dims, raw_data: Some(raw) };
            self.constants.push(tensor);
        }
        name
    }

    /// The graph, without inputs and outputs.
    pub fn finish(self, name: &str) -> GraphProto {
        GraphProto {
            name: Some(name.to_owned()),
            node: self.nodes,
            initializer: self.constants,
            ..GraphProto::default()
        }
    }
}
