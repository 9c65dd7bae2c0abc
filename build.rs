//! Linker settings of the shipped binary: identical functions folded, relative relocations packed.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for argument in ["-Wl,--icf=all", "-Wl,-z,pack-relative-relocs"] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
}
