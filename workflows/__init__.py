"""The two workflows that ship. They come in by the entry point that anybody else's would use."""
