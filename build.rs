//! Linker settings of the shipped binary: identical functions folded, relative relocations packed, no tables for unwinding.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=link/without-unwinding.ld");
    // Rust links with lld here, and elsewhere with the system's linker, which does not know these.
    if std::env::var("CARGO_CFG_TARGET_ARCH").as_deref() != Ok("x86_64") {
        return;
    }
    for argument in ["-Wl,--icf=all", "-Wl,-z,pack-relative-relocs"] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
    // Development builds unwind; a release aborts.
    if std::env::var("PROFILE").as_deref() == Ok("release") {
        let root = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
        println!(
            "cargo:rustc-link-arg-bins=-Wl,--no-eh-frame-hdr,-T,{root}/link/without-unwinding.ld"
        );
    }
}
