//! DNS for services and pods, served on the node.
