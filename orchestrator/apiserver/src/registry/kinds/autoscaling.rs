//! `autoscaling`. One file a kind.

pub(crate) mod horizontalpodautoscalers;
