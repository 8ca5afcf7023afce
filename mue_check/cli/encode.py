"""``mue_check encode``: encode a token file again with a vocabulary that small models can use."""

from pathlib import Path

from mue_check.cli.command import EXIT_OK, Commands, Options, Parser, require_between


def add(commands: "Commands[Parser]") -> None:
    """Declare the command."""
    encode = commands.add_parser(
        "encode",
        help="encode a token file again with a small vocabulary",
        description="Give the most frequent token ids new ids by rank, and the last id to all others. Ids may go up to "
        "262143. Files hold uint16, or uint32 if their name ends in .u32.bin.",
        epilog="example: mue_check encode tokens.u32.bin --out small.bin --vocab 1024",
    )
    encode.add_argument("tokens", metavar="TOKENS", type=Path, help="the file that is read")
    encode.add_argument("--out", required=True, metavar="FILE", type=Path, help="the file that is written")
    encode.add_argument("--vocab", type=int, default=4096, metavar="V", help="ids to use (default: 4096)")
    encode.set_defaults(run=run)


def run(options: Options) -> int:
    """Encode, and print how much of the text keeps an id of its own."""
    from mue_check.data.encode import LARGEST_VOCAB, encode_tokens

    require_between("--vocab", options.vocab, 2, LARGEST_VOCAB)
    done = encode_tokens(options.tokens, options.out, options.vocab)
    print(f"ids     {done.before} that occur, now {done.after}")
    print(f"tokens  {done.tokens}, of which {done.share:.2%} keep an id of their own")
    return EXIT_OK
