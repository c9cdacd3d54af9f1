//! Helpers of the layer tests.
