"""The fine-tuned model as an MLflow model: logged from outside, and the code that lies inside."""
