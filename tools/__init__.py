"""The ``anondata`` command and the scripts that rebuild what is bundled."""
