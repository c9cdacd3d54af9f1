//! Canonical names against what they say.

use super::name::{ParamName, Role, UnknownName};
use super::segment::Segment;

#[test]
fn names_say_where_and_what_for() {
    for (text, segment, role) in [
        ("cls_token", Segment::Embed, Role::Tower),
        ("patch_embed.proj.weight", Segment::Embed, Role::Tower),
        ("blocks.12.attn.qkv.weight", Segment::Block(12), Role::Tower),
        ("blocks.0.ls2.gamma", Segment::Block(0), Role::Tower),
        ("blocks.1.attn.q.lora_a", Segment::Block(1), Role::Adapter),
        ("blocks.1.mlp.fc2.lora_b", Segment::Block(1), Role::Adapter),
        ("blocks.3.prompt", Segment::Block(3), Role::Prompt),
        ("fc_norm.weight", Segment::Pool, Role::Tower),
        ("attn_pool.latent", Segment::Pool, Role::Tower),
        ("attn_pool.mlp.fc1.bias", Segment::Pool, Role::Tower),
        ("gated_pool.w.weight", Segment::Pool, Role::Head),
        ("projection.weight", Segment::Head, Role::Projection),
        ("prompt.context", Segment::Head, Role::Context),
        ("head.logit_scale", Segment::Head, Role::Head),
    ] {
        let name: ParamName = text.parse().unwrap();
        assert_eq!((name.to_string().as_str(), name.segment(), name.role()), (text, segment, role));
    }
}

#[test]
fn other_texts_are_no_names() {
    for text in ["", "head.", "adapter.weight", "blocks.x.prompt", "blocks.1", "blocks.1.head.weight", "norm1.bias"] {
        assert_eq!(text.parse::<ParamName>(), Err(UnknownName), "{text}");
    }
}

#[test]
fn segments_are_in_the_order_of_the_forward_pass() {
    let segments = [Segment::Embed, Segment::Block(0), Segment::Block(7), Segment::Pool, Segment::Head];
    assert!(segments.is_sorted());
    assert_eq!(segments.map(|segment| segment.layer(8)), [0, 1, 8, 9, 9]);
}
