"""What tests share: dense twins, tables of heads, small runs, files. No tests here."""
