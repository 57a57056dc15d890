//! Whether this kernel takes the programs: each is loaded, none is attached. The one test that says something of a kernel
//! to which they cannot be attached.
//!
//! What older kernels refuse and this one takes is looked for in the programs themselves.

mod verifier {
    mod stack;
}

use penstock_tests::dataplane::{Stand, object};
use penstock_tests::netns::isolated;

#[test]
fn every_program_is_accepted() {
    let Some(object) = object() else { return };
    isolated(|| {
        let stand = Stand::new(&object, "10.240.0.11,fd00:240::11", None).expect("a stand");
        let accepted = penstock_dataplane::verify(stand.options()).unwrap_or_else(|error| panic!("{error}"));
        assert!(accepted > 10, "only {accepted} programs in {}", object.display());
    });
}
