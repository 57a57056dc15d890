//! Where in a document a decoder is. A linked list on the stack: it costs nothing until a message is written.

use std::fmt;

/// A place in a document, printed as `spec.containers[0].image`.
#[derive(Clone, Copy)]
pub enum Path<'a> {
    /// The document itself.
    Root,
    /// A field or a map key of the parent.
    Key(&'a Path<'a>, &'a str),
    /// An item of the parent.
    Index(&'a Path<'a>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Key(Path::Root, key) => f.write_str(key),
            Path::Key(parent, key) => write!(f, "{parent}.{key}"),
            Path::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_as_kubectl_prints_it() {
        let spec = Path::Key(&Path::Root, "spec");
        let containers = Path::Key(&spec, "containers");
        let first = Path::Index(&containers, 0);
        assert_eq!(Path::Key(&first, "imagee").to_string(), "spec.containers[0].imagee");
    }
}
